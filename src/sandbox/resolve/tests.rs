use std::os::unix::fs::symlink;

use super::*;

struct Place {
    folder: tempfile::TempDir,
    protected: Vec<PathBuf>,
}

impl Place {
    fn new() -> Self {
        // Not below the folder for temporary files, which is too broad by itself.
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        std::fs::create_dir_all(&target).expect("a folder to build in");
        let folder = tempfile::tempdir_in(target).expect("a folder");
        Place { folder, protected: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("it exists").join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, text).expect("written");
        path
    }

    fn plan(&self, policy: &Policy, program: &Path, args: &[&str]) -> Result<Plan, Refusal> {
        let home = self.path("home");
        self.plan_of(1000, &[home], policy, program, args)
    }

    fn plan_of(
        &self,
        uid: u32,
        homes: &[PathBuf],
        policy: &Policy,
        program: &Path,
        args: &[&str],
    ) -> Result<Plan, Refusal> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let (home, of_ada) = (self.path("home"), self.path("ada"));
        for home in [&home, &of_ada] {
            std::fs::create_dir_all(home).expect("made");
        }
        let passwd = format!(
            "ada:x:1001:1001::{}:/bin/sh\nme:x:1000:1000::{}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
            of_ada.display(),
            home.display()
        );
        policy.plan(&Around {
            server: "files",
            program,
            args: &args,
            cwd: &self.path(""),
            path: "/usr/bin:/bin",
            own_path: &format!("/usr/bin:./out:{0}/bin/own:{0}/later/not/bin", self.path("").display()),
            homes,
            protected: &self.protected,
            uid,
            passwd: &passwd,
        })
    }
}

fn reads(plan: &Plan, path: &Path) -> bool {
    is_within(path, &plan.read)
}

#[test]
fn a_program_gets_its_own_prefix_and_never_the_home_around_it() {
    let place = Place::new();
    let tool = place.file("runtime/bin/tool", "");
    let library = place.file("runtime/lib/library", "");
    let plan = place.plan(&Policy::default(), &tool, &[]).expect("a plan");
    assert!(reads(&plan, &tool) && reads(&plan, &library));

    let key = place.file("home/.ssh/id", "");
    let tool = place.file("home/bin/tool", "");
    let plan = place.plan(&Policy::default(), &tool, &[]).expect("a plan");
    assert!(reads(&plan, &tool) && !reads(&plan, &key), "{:?}", plan.read);

    let state = place.file("home/.local/share/other", "");
    let real = place.file("home/.local/share/tools/x/bin/tool", "");
    std::fs::create_dir_all(place.path("home/.local/bin")).expect("made");
    let link = place.path("home/.local/bin/tool");
    symlink(&real, &link).expect("linked");
    let plan = place.plan(&Policy::default(), &link, &[]).expect("a plan");
    assert!(reads(&plan, &real) && reads(&plan, &link) && !reads(&plan, &state), "{:?}", plan.read);
}

#[test]
fn a_home_is_known_whoever_the_server_runs_as_and_whatever_home_says() {
    let place = Place::new();
    let key = place.file("ada/.ssh/id", "");
    let tool = place.file("ada/bin/tool", "");
    let script = place.file("ada/server.py", "");
    let own_key = place.file("home/.ssh/id", "");
    let own_tool = place.file("home/bin/tool", "");
    let word = script.to_str().expect("UTF-8");
    let as_ada = Policy { user: Some("ada".to_owned()), ..Policy::default() };
    for (uid, policy, program, args, key) in [
        (0, &as_ada, &tool, &[][..], &key),
        (0, &as_ada, &own_tool, &[word][..], &key),
        (1000, &Policy::default(), &own_tool, &[][..], &own_key),
    ] {
        let plan = place.plan_of(uid, &[], policy, program, args).expect("a plan");
        assert!(reads(&plan, program) && !reads(&plan, key), "{uid} {}: {:?}", program.display(), plan.read);
    }
    let all = Policy { write: vec![place.path("ada")], ..as_ada };
    let Refusal(why) = place.plan_of(0, &[], &all, &own_tool, &[]).expect_err("her home");
    assert!(why.contains("too much to give away"), "{why}");
}

#[test]
fn a_script_gets_its_package_and_another_file_is_not_given_for_being_named() {
    let place = Place::new();
    let node = place.file("runtime/bin/node", "");
    let script = place.file("app/node_modules/a/dist/index.js", "");
    let dependency = place.file("app/node_modules/b/index.js", "");
    let key = place.file("keys/id", "");
    let other = place.file("app/secret", "");
    let args = [key.to_str().expect("UTF-8"), script.to_str().expect("UTF-8")];
    let plan = place.plan(&Policy::default(), &node, &args).expect("a plan");
    assert!(reads(&plan, &script) && reads(&plan, &dependency));
    assert!(!reads(&plan, &key) && !reads(&plan, &other), "{:?}", plan.read);
}

#[test]
fn a_virtual_environment_gets_the_python_behind_it() {
    let place = Place::new();
    let real = place.file("pythons/3/bin/python3", "");
    let library = place.file("pythons/3/lib/os.py", "");
    let home = format!("home = {}\n", place.path("pythons/3/bin").display());
    place.file("venv/pyvenv.cfg", &home);
    std::fs::create_dir_all(place.path("venv/bin")).expect("made");
    let python = place.path("venv/bin/python");
    symlink(&real, &python).expect("linked");
    let plan = place.plan(&Policy::default(), &python, &[]).expect("a plan");
    assert!(reads(&plan, &python) && reads(&plan, &library), "{:?}", plan.read);
}

#[test]
fn strict_gives_no_prefix_and_needs_everything() {
    let place = Place::new();
    let tool = place.file("runtime/bin/tool", "");
    let library = place.file("runtime/lib/library", "");
    let policy = Policy { profile: Profile::Strict, ..Policy::default() };
    let plan = place.plan(&policy, &tool, &[]).expect("a plan");
    assert!(reads(&plan, &tool) && !reads(&plan, &library));
    assert_eq!(plan.needs_full, ["profile = \"strict\""]);
}

#[test]
fn seawalls_own_files_are_masked_and_never_writable() {
    let mut place = Place::new();
    let tool = place.file("runtime/bin/tool", "");
    let own = place.file("project/servers.toml", "");
    place.protected.push(own.clone());
    let policy = Policy { read: vec![place.path("project")], ..Policy::default() };
    let plan = place.plan(&policy, &tool, &[]).expect("a plan");
    assert_eq!(plan.masked, [own]);
    assert_eq!(plan.needs_full.len(), 1);

    // What is asked for by name is seen in the midst of it, and nothing else is.
    let package = place.file("project/.state/packages/x/index.js", "").parent().expect("a folder").to_owned();
    place.protected.push(place.path("project/.state"));
    let policy = Policy { read: vec![place.path("project"), package.clone()], ..Policy::default() };
    let plan = place.plan(&policy, &tool, &[]).expect("a plan");
    assert_eq!((plan.shown, plan.masked.len()), (vec![package], 2));

    for path in [place.path("project"), place.path("home"), PathBuf::from("/")] {
        let policy = Policy { write: vec![path.clone()], ..Policy::default() };
        assert!(place.plan(&policy, &tool, &[]).is_err(), "{}", path.display());
    }
}

#[test]
fn variables_that_change_programs_are_not_passed_through() {
    let place = Place::new();
    let tool = place.file("runtime/bin/tool", "");
    for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "NODE_OPTIONS", "BASH_ENV"] {
        let policy = Policy { env: vec![name.to_owned()], ..Policy::default() };
        let refusal = place.plan(&policy, &tool, &[]).expect_err(name);
        assert!(refusal.to_string().contains("[servers.files.env]"), "{refusal}");
    }
}

#[test]
fn a_line_of_passwd_is_read() {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:n:/:/bin/false\nbad\n";
    let identity = find_user(passwd, "nobody").expect("there");
    assert_eq!((identity.uid, identity.gid), (65534, 65533));
    assert_eq!(find_user(passwd, "no"), None);
}

#[test]
fn what_a_server_plants_for_its_next_start_gives_it_nothing_more() {
    let place = Place::new();
    let key = place.file("other/key.py", "");
    let elsewhere = place.file("other/bin/tool", "");
    std::fs::create_dir_all(place.path("out/venv/bin")).expect("made");
    let policy = Policy { write: vec![place.path("out")], ..Policy::default() };
    let refused = |program: &Path, args: &[&str], policy: &Policy, leads: &Path| {
        let Refusal(why) = place.plan(policy, program, args).expect_err("it was led");
        let line = format!("add \"{}\" to read under [servers.files.sandbox]", leads.display());
        assert!(why.contains(&line), "{why}");
    };
    let program = place.path("out/server");
    symlink(&elsewhere, &program).expect("linked");
    refused(&program, &[], &policy, &place.path("other"));
    std::fs::remove_file(&program).expect("removed");
    place.file("out/server", &format!("#!{}\n", elsewhere.display()));
    refused(&program, &[], &policy, &place.path("other"));
    place.file("out/server", "#!/bin/sh\n");
    let plan = place.plan(&policy, &program, &[]).expect("the system's own is everybody's");
    assert!(!reads(&plan, &key));

    // An environment of Python's, and a script, whose links it may have changed.
    place.file("out/venv/pyvenv.cfg", &format!("home = {}\n", place.path("other/bin").display()));
    let python = place.file("out/venv/bin/python", "");
    refused(&python, &[], &policy, &place.path("other"));
    let node = place.file("runtime/bin/node", "");
    let script = place.path("out/server.py");
    symlink(&key, &script).expect("linked");
    let words = [script.to_str().expect("text"), key.to_str().expect("text")];
    refused(&node, &words, &policy, &key);
    // Nor does it help to take the script away.
    std::fs::remove_file(&script).expect("removed");
    assert!(!reads(&place.plan(&policy, &node, &words).expect("a plan"), &key));

    let led = place.path("out/data");
    symlink(place.path("other"), &led).expect("linked");
    for (key, policy) in [
        ("read", Policy { read: vec![led.clone()], ..policy.clone() }),
        ("write", Policy { write: vec![place.path("out"), led.clone()], ..Policy::default() }),
    ] {
        let Refusal(why) = place.plan(&policy, &node, &[]).expect_err(key);
        assert!(why.starts_with(&format!("{key}: ")) && why.contains("that it could have made"), "{why}");
    }

    // What the user has named is not in doubt.
    let named = Policy { read: vec![place.path("other")], ..policy };
    assert!(place.plan(&named, &python, &[]).is_ok());
}

#[test]
fn a_folder_of_programs_is_not_written() {
    let place = Place::new();
    let program = place.file("runtime/bin/tool", "");
    place.file("bin/own/x", "");
    place.file("bin/own/below/x", "");
    place.file("out/x", "");
    let written = |name: &str| {
        let policy = Policy { write: vec![place.path(name)], ..Policy::default() };
        place.plan(&policy, &program, &[])
    };
    // One that it could make itself is as good.
    place.file("later/x", "");
    for (name, on_path) in [("bin", "bin/own"), ("bin/own", "bin/own"), ("later", "later/not/bin")] {
        let Refusal(why) = written(name).expect_err(name);
        assert!(why.contains(&format!("{on_path} in it, which is on PATH")), "{why}");
    }
    for name in ["bin/own/below", "out", "runtime/bin"] {
        assert!(written(name).is_ok(), "{name}");
    }
}

#[test]
fn a_package_does_not_say_what_else_its_server_is_given() {
    let place = Place::new();
    let key = place.file("kept/id", "");
    place.file("package/pyvenv.cfg", &format!("home = {}\n", place.path("kept").display()));
    let by_environment = place.file("package/bin/run", "#!/bin/sh\n");
    let by_first_line = place.file("other/run", &format!("#!{}\n", key.display()));
    let by_env = place.file("other/by-env", &format!("#!/usr/bin/env -S -u {} sh\n", key.display()));
    let by_link = place.path("other/link");
    symlink(&key, &by_link).expect("linked");
    let of = |folder: &str, interpreter: Option<PathBuf>| {
        let folder = place.path(folder);
        Policy {
            read: vec![folder.clone()],
            package: Some(Box::new(super::super::policy::Package { folder, interpreter })),
            ..Policy::default()
        }
    };
    for program in [&by_environment, &by_first_line, &by_env, &by_link] {
        let folder = if program.starts_with(place.path("package")) { "package" } else { "other" };
        let plan = place.plan(&Policy::default(), program, &[]).expect("a plan");
        assert!(reads(&plan, &key), "the control: a program of the user's own says it: {}", program.display());
        let Refusal(why) = place.plan(&of(folder, None), program, &[]).expect_err("a package");
        assert!(why.contains("or in its package") && why.contains("/kept"), "{why}");
    }
    // What the user's PATH leads to by a name, and what seawall has chosen, are given.
    let named = place.file("other/named", "#!/usr/bin/env sh\n");
    assert!(place.plan(&of("other", None), &named, &[]).is_ok());
    let python = place.file("pythons/3/bin/python3", "");
    let library = place.file("pythons/3/lib/x", "");
    let link = place.path("package/bin/python");
    symlink(&python, &link).expect("linked");
    let plan = place.plan(&of("package", Some(python)), &link, &[]).expect("a plan");
    assert!(reads(&plan, &library) && !reads(&plan, &key), "{:?}", plan.read);
}
