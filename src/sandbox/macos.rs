//! macOS: a profile in the language of `sandbox-exec`, as text. Pure, so that it is
//! tested everywhere; what it does on a Mac has not been run by these tests.
//!
//! A later rule wins over an earlier one: what is allowed comes first, what is denied
//! whatever was allowed comes last.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::{Network, Plan, Profile, Refusal};

/// By its whole path: a PATH cannot replace it.
#[cfg(target_os = "macos")]
pub(crate) const SANDBOX_EXEC: &str = "/usr/bin/sandbox-exec";

/// What every program reads to start.
const SYSTEM: [&str; 8] = [
    "/usr",
    "/bin",
    "/sbin",
    "/System",
    "/Library/Frameworks",
    "/Library/Apple",
    "/private/var/db/dyld",
    "/private/var/db/timezone",
];
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];
/// Services without which libraries do not work; none of them starts programs or keeps secrets.
const SERVICES: [&str; 4] =
    ["com.apple.logd", "com.apple.trustd.agent", "com.apple.system.opendirectoryd.libinfo", "com.apple.bsd.dirhelper"];
const SYSCTLS: [&str; 8] = [
    "hw.activecpu",
    "hw.logicalcpu",
    "hw.memsize",
    "hw.ncpu",
    "hw.pagesize",
    "kern.osrelease",
    "kern.osversion",
    "kern.ostype",
];
/// Below a folder that may be written: what others would run later.
const RUN_LATER: [&str; 3] = [".git/hooks", ".git/config", ".vscode"];

/// What of a policy this system cannot give; strict takes no less than everything.
pub(crate) fn refuse_what_cannot_be_had(plan: &Plan) -> Result<Vec<String>, Refusal> {
    let server = &plan.server;
    let refuse = |what: &str| {
        Err(Refusal(format!("{what} cannot be had on macOS; write something else under [servers.{server}.sandbox]")))
    };
    if plan.profile == Profile::Strict {
        return refuse("profile = \"strict\"");
    }
    match plan.network {
        Network::Loopback => return refuse("network = \"loopback\" (there is one loopback for all)"),
        Network::Allow(_) => return refuse("network = { allow = … }"),
        Network::None | Network::Open => {}
    }
    if let Some(need) = plan.needs_full.first() {
        return refuse(need);
    }
    let missing = ["memory limit", "process limit", "size of temporary files", "certain end of the whole process tree"];
    Ok(missing.map(str::to_owned).into())
}

/// The profile of a plan.
pub(crate) fn profile(plan: &Plan) -> Result<String, Refusal> {
    let mut text = String::from("(version 1)\n");
    let tag: String = plan.server.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let _ = writeln!(text, "(deny default (with message \"seawall-{tag}\"))");
    text.push_str("(allow process-exec)\n(allow process-fork)\n");
    text.push_str("(allow signal (target same-sandbox))\n(allow process-info* (target same-sandbox))\n");
    let _ = writeln!(text, "(allow sysctl-read {})", names("sysctl-name", &SYSCTLS));
    let _ = writeln!(text, "(allow mach-lookup {})", names("global-name", &SERVICES));
    let system: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    for path in system.iter().chain(&plan.read) {
        allow(&mut text, "file-read*", path)?;
    }
    for device in DEVICES {
        let _ = writeln!(text, "(allow file-read* file-write-data (literal \"{device}\"))");
    }
    for path in plan.write.iter().chain([&plan.private]).filter(|path| !path.as_os_str().is_empty()) {
        allow(&mut text, "file-read* file-write*", path)?;
    }
    metadata(&mut text, plan)?;
    if plan.network == Network::Open {
        text.push_str("(allow network*)\n(allow network-outbound (literal \"/private/var/run/mDNSResponder\"))\n");
    }
    for path in plan.write.iter().flat_map(|path| both_names(path)) {
        for name in RUN_LATER {
            let _ = writeln!(text, "(deny file-write* (subpath {}))", quoted(&path.join(name))?);
        }
    }
    for path in plan.masked.iter().flat_map(|path| both_names(path)) {
        let _ = writeln!(text, "(deny file-read* file-write* (subpath {}))", quoted(&path)?);
    }
    Ok(text)
}

fn names(kind: &str, names: &[&str]) -> String {
    let each: Vec<String> = names.iter().map(|name| format!("({kind} \"{name}\")")).collect();
    each.join(" ")
}

/// A folder with all that is in it, a file alone; under both of its names.
fn allow(text: &mut String, what: &str, path: &Path) -> Result<(), Refusal> {
    let filter = if path.is_file() { "literal" } else { "subpath" };
    for path in both_names(path) {
        let _ = writeln!(text, "(allow {what} ({filter} {}))", quoted(&path)?);
    }
    Ok(())
}

/// The folders on the way to what is allowed may be asked about, and not read.
fn metadata(text: &mut String, plan: &Plan) -> Result<(), Refusal> {
    let mut folders: Vec<PathBuf> =
        plan.read.iter().chain(&plan.write).flat_map(|path| path.ancestors().skip(1)).flat_map(both_names).collect();
    folders.push("/".into());
    folders.sort();
    folders.dedup();
    for folder in folders {
        let _ = writeln!(text, "(allow file-read-metadata (literal {}))", quoted(&folder)?);
    }
    Ok(())
}

/// `/var`, `/tmp` and `/etc` are links into `/private`.
fn both_names(path: &Path) -> Vec<PathBuf> {
    let mut names = vec![path.to_owned()];
    for link in ["/var", "/tmp", "/etc"] {
        if path.starts_with(link) {
            names.push(Path::new("/private").join(path.strip_prefix("/").unwrap_or(path)));
        }
    }
    if let Ok(rest) = path.strip_prefix("/private")
        && ["var", "tmp", "etc"].iter().any(|name| rest.starts_with(name))
    {
        names.push(Path::new("/").join(rest));
    }
    names
}

/// A string of the profile's language; nothing in a path can end it.
fn quoted(path: &Path) -> Result<String, Refusal> {
    let Some(text) = path.to_str().filter(|text| !text.chars().any(char::is_control)) else {
        return Err(Refusal(format!("{path:?}: a path with control characters cannot be named in a sandbox")));
    };
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(read: &[&str], write: &[&str]) -> Plan {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        Plan {
            profile: Profile::Standard,
            network: Network::None,
            unix_sockets: false,
            read: paths(read),
            write: paths(write),
            shown: Vec::new(),
            masked: paths(&["/Users/ada/notes/servers.toml"]),
            private: "/private/tmp/seawall-x".into(),
            ..Plan::off("files")
        }
    }

    #[test]
    fn the_profile_is_the_one_on_record() {
        let text = profile(&plan(&["/Users/ada/notes"], &["/Users/ada/out"])).expect("a profile");
        let golden = include_str!("macos/files.sb");
        assert_eq!(text, golden, "if this is as it should be, write it to src/sandbox/macos/files.sb");
    }

    #[test]
    fn without_a_network_no_rule_speaks_of_one() {
        let mut plan = plan(&[], &[]);
        assert!(!profile(&plan).expect("a profile").contains("network"));
        plan.network = Network::Open;
        assert!(profile(&plan).expect("a profile").contains("(allow network*)"));
    }

    #[test]
    fn what_macos_cannot_give_is_refused() {
        let refused = |change: fn(&mut Plan)| {
            let mut plan = plan(&[], &[]);
            change(&mut plan);
            refuse_what_cannot_be_had(&plan).is_err()
        };
        assert!(refused(|plan| plan.profile = Profile::Strict));
        assert!(refused(|plan| plan.network = Network::Loopback));
        assert!(refused(|plan| plan.network = Network::Allow(Vec::new())));
        assert!(refused(|plan| plan.needs_full.push("tier".into())));
        assert!(!refused(|_| {}));
    }

    /// Reads the text as the system would: strings with escapes, and parentheses.
    fn top_level_forms(text: &str) -> Option<Vec<String>> {
        let (mut depth, mut in_string, mut escaped) = (0_i32, false, false);
        let mut forms = vec![String::new()];
        for c in text.chars() {
            match (in_string, c) {
                _ if escaped => escaped = false,
                (true, '\\') => escaped = true,
                (_, '"') => in_string = !in_string,
                (false, '(') => depth += 1,
                (false, ')') => depth -= 1,
                _ => {}
            }
            forms.last_mut()?.push(c);
            if depth < 0 {
                return None;
            }
            if depth == 0 && c == '\n' && !in_string {
                forms.push(String::new());
            }
        }
        (depth == 0 && !in_string).then_some(forms)
    }

    proptest! {
        #[test]
        fn no_path_breaks_out_of_its_string(name in "\\PC{0,40}", odd in "[\"\\\\()\n\r\0 ;#|]{0,12}") {
            for path in [format!("/Users/{name}"), format!("/Users/{odd}"), format!("/Users/{name}{odd}x")] {
                let plain = profile(&plan(&["/Users/x"], &[])).expect("a profile");
                let Ok(text) = profile(&plan(&[&path], &[])) else {
                    prop_assert!(path.chars().any(char::is_control));
                    continue;
                };
                let forms = top_level_forms(&text);
                prop_assert!(forms.is_some(), "{text}");
                let allowed = |text: &str| text.matches("\n(allow file-read* (subpath").count();
                prop_assert_eq!(allowed(&text), allowed(&plain), "a rule more: {}", text);
                for form in forms.expect("looked at").iter().filter(|form| !form.trim().is_empty()) {
                    prop_assert!(form.starts_with('('), "{}", form);
                }
            }
        }
    }
}
