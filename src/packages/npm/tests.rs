use super::{
    super::{Said, request::Request},
    *,
};

fn config(text: &str) -> serde_json::Map<String, Value> {
    serde_json::from_str(text).expect("an object")
}

fn request(bin: Option<&str>) -> Request {
    Request { packages: vec!["x".to_owned()], bin: bin.map(str::to_owned), ..Request::default() }
}

#[test]
fn registries_and_their_credentials_are_taken_and_nothing_else() {
    let config = config(
        r#"{"registry":"https://packages.example.com/npm/","@acme:registry":"http://user:pw@npm.example.org:8080",
            "cafile":"/etc/ca.pem","ca":["a\nb"],"strict-ssl":true,"before":null,"prefix":"/usr","email":"ada@example.com"}"#,
    );
    let written = "//packages.example.com/npm/:_authToken=${HOME}\n//elsewhere.example.com/:_authToken=s3cret\n\
                   //packages.example.com.evil.example/:_authToken=s3cret\nemail=ada\n";
    let settings = Settings::of(&config, &[written.to_owned()]);
    let hosts = settings.hosts().expect("hosts");
    let at = |host: &str, port| Destination { host: host.to_owned(), port };
    assert_eq!(hosts, [at("npm.example.org", 8080), at("packages.example.com", 443)]);
    let lines = settings.lines.join("\n");
    for kept in ["registry=\"https://packages", "@acme:registry=", "ca[]=\"a\\nb\"", "/npm/:_authToken=${HOME}"] {
        assert!(lines.contains(kept), "{kept}: {lines}");
    }
    assert!(!lines.contains("s3cret") && !lines.contains("ada") && !lines.contains("prefix"), "{lines}");
    assert_eq!((settings.env, settings.read), (vec!["HOME".to_owned()], vec![PathBuf::from("/etc/ca.pem")]));
}

#[test]
fn a_registry_that_is_no_url_is_told() {
    for bad in ["file:///x", "npm.example.com", "https://", "http://x:y"] {
        let settings = Settings::of(&config(&format!(r#"{{"registry":"{bad}"}}"#)), &[]);
        assert!(settings.hosts().expect_err(bad).to_string().contains("no http or https URL"), "{bad}");
    }
}

fn said(output: &str) -> Said {
    Said { succeeded: false, output: output.to_owned(), last_words: "exit code 1".to_owned() }
}

#[test]
fn why_it_was_not_installed_is_told_and_whether_to_try_again() {
    let why = |code: &str| said(&format!(r#"{{"error":{{"code":"{code}","summary":"so it is"}}}}"#));
    for (code, expected) in [("E404", "no package x"), ("ETARGET", "no such version of x"), ("E401", "npm login")] {
        let failed = failure::why(&request(None), &why(code));
        assert!(matches!(&failed, StartError::Permanent(why) if why.contains(expected)), "{failed}");
    }
    for code in ["E502", "ENOTFOUND"] {
        let failed = failure::why(&request(None), &why(code));
        assert!(matches!(&failed, StartError::Transient(why) if why.contains("cannot be reached")), "{failed}");
    }
    let failed = failure::why(&request(None), &said("not json"));
    assert!(matches!(&failed, StartError::Transient(why) if why.contains("exit code 1")), "{failed}");
}

/// A folder as npm leaves it, with one package of these programs.
fn installed(name: &str, bin: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |file: &str, text: &str| {
        let file = folder.path().join(file);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, text).expect("written");
    };
    write("package.json", &format!(r#"{{"dependencies":{{"{name}":"^1"}}}}"#));
    write(&format!("node_modules/{name}/package.json"), &format!(r#"{{"name":"{name}"{bin}}}"#));
    write(&format!("node_modules/{name}/a.js"), "#!/usr/bin/env node\n");
    write(&format!("node_modules/{name}/b"), "#!/bin/sh\n");
    write("node_modules/.bin/b", "#!/bin/sh\n");
    folder
}

#[test]
fn the_program_is_the_one_that_npx_would_run() {
    let found = |name: &str, bin: &str, wanted: Option<&str>| {
        let folder = installed(name, bin);
        program(&request(wanted), folder.path()).map(|note| (note.file.display().to_string(), note.is_script))
    };
    let script = |file: &str| Ok((file.to_owned(), true));
    assert_eq!(found("x", r#","bin":"a.js""#, None), script("node_modules/x/a.js"));
    assert_eq!(found("@s/x", r#","bin":"./a.js""#, None), script("node_modules/@s/x/a.js"));
    assert_eq!(found("x", r#","bin":{"p":"a.js","q":"a.js"}"#, None), script("node_modules/x/a.js"));
    assert_eq!(found("x", r#","bin":{"x":"b","q":"a.js"}"#, None), Ok(("node_modules/x/b".to_owned(), false)));
    assert_eq!(found("x", "", Some("b")), Ok(("node_modules/.bin/b".to_owned(), false)));

    let refused = |bin: &str, wanted| found("x", bin, wanted).expect_err(bin);
    assert!(refused("", None).contains("has no program"));
    assert!(refused(r#","bin":{"p":"a.js","q":"b"}"#, None).contains("more than one program (p, q)"));
    assert!(refused("", Some("c")).contains("no program c"));
    assert!(refused("", Some("../x")).contains("no program"));
    assert!(refused(r#","bin":"../../../../../bin/sh""#, None).contains("not in its package"));
    assert!(refused(r#","bin":"c.js""#, None).contains("not in its package"));
}
