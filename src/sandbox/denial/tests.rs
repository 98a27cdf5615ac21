use std::path::PathBuf;

use super::*;
use crate::sandbox::{Destination, Profile};

struct World {
    folder: tempfile::TempDir,
    reach: Reach,
}

fn world(tier: &str, network: Network) -> World {
    // Not in /tmp, where a server with its own file system has files of its own.
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let at = |name: &str| folder.path().canonicalize().expect("it is there").join(name);
    for name in ["given", "out", "kept"] {
        std::fs::create_dir(at(name)).expect("made");
        std::fs::write(at(name).join("file"), "x").expect("written");
    }
    std::fs::write(at("kept").join("servers.toml"), "").expect("written");
    let plan = Plan {
        profile: Profile::Standard,
        read: vec![at("given")],
        write: vec![at("out")],
        network,
        private: at("private"),
        ..Plan::off("files")
    };
    let reach = Reach::new(plan, tier, &[at("kept/servers.toml")]);
    World { folder, reach }
}

impl World {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("it is there").join(name)
    }

    fn told(&self, complaint: &str, name: &str) -> Vec<String> {
        let text = complaint.replace('@', &self.at(name).display().to_string());
        self.reach.denials(&text, &[]).iter().map(ToString::to_string).collect()
    }
}

const FORBIDDEN: &str = "Error: EACCES: permission denied, open '@'";
const ABSENT: &str = "[Errno 2] No such file or directory: '@'";

#[test]
fn a_path_outside_is_told_with_the_line_that_allows_it() {
    for (tier, complaint) in [("full", FORBIDDEN), ("core", FORBIDDEN), ("full", ABSENT)] {
        let world = world(tier, Network::None);
        let path = world.at("kept/file").display().to_string();
        let expected = format!(
            "blocked by the sandbox: read of {path}; to allow: add \"{path}\" to read under [servers.files.sandbox]"
        );
        assert_eq!(world.told(complaint, "kept/file"), [expected], "{tier} {complaint}");
    }
}

#[test]
fn a_new_file_is_allowed_by_its_folder() {
    let world = world("full", Network::None);
    let told = world.told("mkdir: cannot create directory '@': Permission denied", "kept/new");
    let kept = world.at("kept").display().to_string();
    assert!(told[0].contains("write to") && told[0].contains(&format!("add \"{kept}\" to write")), "{told:?}");
}

#[test]
fn nothing_is_claimed_that_the_policy_does_not_say() {
    let world = world("full", Network::None);
    let core = self::world("core", Network::None);
    assert!(world.told(FORBIDDEN, "out/file").is_empty(), "given to write");
    assert!(world.told(ABSENT, "kept/missing").is_empty(), "it is not there outside either");
    assert!(world.told(FORBIDDEN, "no/such/folder").is_empty());
    assert!(world.told(ABSENT, "given/missing").is_empty());
    assert!(core.told(ABSENT, "kept/file").is_empty(), "without an own root what is there is seen");
    assert!(world.told("it said nothing of '@'", "kept/file").is_empty());
    assert!(world.reach.denials("EACCES: permission denied, open '/proc/1/environ'", &[]).is_empty());
    let off = Reach::new(Plan::off("files"), "none", &[]);
    assert!(off.denials(&FORBIDDEN.replace('@', "/etc/passwd"), &[]).is_empty());
}

#[test]
fn a_write_where_only_reading_is_given_is_the_sandboxs_if_the_user_could() {
    let world = world("full", Network::None);
    let told = world.told("EROFS: read-only file system, open '@'", "given/file");
    assert!(told[0].contains("write to"), "{told:?}");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o444);
    std::fs::set_permissions(world.at("given/file"), mode).expect("ours");
    assert!(world.told(FORBIDDEN, "given/file").is_empty(), "its own rights forbid that");
}

#[test]
fn the_request_says_what_the_complaint_does_not() {
    let world = world("core", Network::None);
    let path = world.at("kept/file").display().to_string();
    let denials = world.reach.denials("Permission denied (os error 13)", &[path]);
    assert_eq!(denials[0].wanted, Wanted::Read(world.at("kept/file")));
}

#[test]
fn seawalls_own_is_told_without_a_line_that_would_allow_it() {
    let told = world("core", Network::None).told(FORBIDDEN, "kept/servers.toml");
    assert!(told[0].ends_with("which is seawall's own: no server gets it"), "{told:?}");
}

#[test]
fn a_host_that_is_not_on_the_list_is_told() {
    let complaint = "request failed: getaddrinfo EAI_AGAIN api.example.com";
    let expected = "blocked by the sandbox: connection to api.example.com:443; to allow: add \
                    \"api.example.com:443\" to network.allow under [servers.files.sandbox]";
    assert_eq!(world("full", Network::None).told(complaint, ""), [expected]);
    let list = |host: &str| Network::Allow(vec![Destination { host: host.to_owned(), port: 443 }]);
    assert_eq!(world("full", list("other.example.com")).told(complaint, ""), [expected]);
    for open in [Network::Open, list("api.example.com"), list("*.example.com")] {
        assert!(world("full", open).told(complaint, "").is_empty());
    }
    let nameless = "<urlopen error [Errno -3] Temporary failure in name resolution>";
    assert!(world("full", Network::None).told(nameless, "")[0].contains("HOST:443"));
}

#[test]
fn a_forbidden_connection_is_told_from_a_forbidden_file() {
    let expected = |place: &str| {
        format!(
            "blocked by the sandbox: connection to {place}; to allow: add \"{place}\" to network.allow under \
             [servers.files.sandbox]"
        )
    };
    let none = world("core", Network::None);
    let told = |complaint: &str, asked: &[&str]| {
        let asked: Vec<String> = asked.iter().map(|word| (*word).to_owned()).collect();
        none.reach.denials(complaint, &asked).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let forbidden = "PermissionError: [Errno 1] Operation not permitted";
    assert_eq!(told(forbidden, &["GET", "https://api.example.com/v1"]), [expected("api.example.com:443")]);
    assert_eq!(told(forbidden, &["203.0.113.5:8080"]), [expected("203.0.113.5:8080")]);
    assert_eq!(told("dial tcp 203.0.113.5:443: socket: operation not permitted", &[]), [expected("203.0.113.5:443")]);
    // A word with a dot in it is a name of many things, and a path is what was meant.
    assert!(told(forbidden, &["report.final"]).is_empty());
    assert!(told(&format!("{forbidden}: '/no/such/folder/x'"), &["https://api.example.com"]).is_empty());
    let open = world("core", Network::Open);
    assert!(open.reach.denials(forbidden, &["https://api.example.com".to_owned()]).is_empty());
}
