use super::{
    super::{
        Said,
        request::{Manager, Request},
    },
    *,
};

/// As uv 0.13 says it, and every other since 0.5 but for fields that are not read.
const SHOWN: &str = r#"
ToolInstallSettings {
    options: ResolverInstallerOptions {
        index: Some([ Index { url: Url( VerbatimUrl { url: SafeUrl {
                    scheme: "https",
    settings: ResolverInstallerSettings {
        resolver: ResolverSettings {
            index_locations: IndexLocations {
                indexes: [
                    Index {
                        name: Some(
                            IndexName(
                                "corp",
                            ),
                        ),
                        url: Url(
                            VerbatimUrl {
                                url: SafeUrl {
                                    scheme: "https",
                                    cannot_be_a_base: false,
                                    username: "user",
                                    password: Some(
                                        "****",
                                    ),
                                    host: Some(
                                        Domain(
                                            "Packages.example.com",
                                        ),
                                    ),
                                    port: None,
                                    path: "/simple",
                                },
                                given: Some(
                                    "https://user:****@packages.example.com/simple",
                                ),
                            },
                        ),
                        explicit: false,
                        default: @DEFAULT@,
                    },
                    Index {
                        name: None,
                        url: Url(
                            VerbatimUrl {
                                url: SafeUrl {
                                    scheme: "http",
                                    host: Some(
                                        Ipv4(
                                            10.0.0.1,
                                        ),
                                    ),
                                    port: Some(
                                        8080,
                                    ),
                                    path: "/simple",
                                },
                            },
                        ),
                        default: false,
                    },
                ],
                flat_index: [
                    Index {
                        url: Path(
                            VerbatimUrl {
                                url: SafeUrl {
                                    scheme: "file",
                                    host: None,
                                    port: None,
                                    path: "/srv/wheels",
                                },
                            },
                        ),
                        default: false,
                    },
                ],
                no_index: false,
            },
            index_strategy: FirstIndex,
"#;

fn at(host: &str, port: u16) -> Destination {
    Destination { host: host.to_owned(), port }
}

#[test]
fn indexes_are_read_off_what_uv_shows() {
    let shown = shown::read(&SHOWN.replace("@DEFAULT@", "true")).expect("understood");
    assert_eq!(shown.hosts(), [at("packages.example.com", 443), at("10.0.0.1", 8080)]);
    assert_eq!(shown.folders().collect::<Vec<_>>(), [Path::new("/srv/wheels")]);
    assert!(shown.has_default && !shown.has_no_index);
    assert!(!format!("{shown:?}").contains("****"), "{shown:?}");
    assert!(!shown::read(&SHOWN.replace("@DEFAULT@", "false")).expect("understood").has_default);
    assert!(shown::read(&SHOWN.replace("no_index: false", "no_index: true")).expect("understood").has_no_index);
    for other in ["", "error: unexpected argument", "index_locations: IndexLocations {\n indexes: [],"] {
        assert_eq!(shown::read(other), None, "{other}");
    }
}

#[test]
fn a_place_is_named_where_a_page_of_an_index_leads_to_it() {
    let cache = tempfile::tempdir().expect("a folder");
    let write = |file: &str, text: &str| {
        let file = cache.path().join(file);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, text).expect("written");
    };
    write("simple-v28/pypi/x.rkyv", "\0\u{1}https://files.example.org/a/x.whl\0\0https://other.example:8443/y");
    write("flat-index-v2/html/z", "http://links.example/z.whl");
    write("wheels-v9/x.msgpack", "https://metadata.example/says-so");
    let asked = [
        at("files.example.org", 443),
        at("other.example", 8443),
        at("links.example", 80),
        at("files.example.org", 80),
        at("other.example", 443),
        at("metadata.example", 443),
        at("example.org", 443),
        at("files.example.org.evil.example", 443),
    ];
    assert_eq!(pages::named(cache.path(), asked.to_vec()), asked[..3]);
    assert!(pages::named(&cache.path().join("missing"), asked.to_vec()).is_empty());
}

fn request(package: &str, bin: Option<&str>) -> Request {
    Request {
        manager: Manager::Uvx,
        packages: vec![package.to_owned()],
        bin: bin.map(str::to_owned),
        ..Request::default()
    }
}

#[test]
fn the_program_is_the_one_that_uvx_would_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |file: &str, text: &str| {
        let file = folder.path().join(file);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, text).expect("written");
    };
    let found = |package: &str, bin: Option<&str>| {
        program::program(&request(package, bin), folder.path())
            .map(|note| (note.file.display().to_string(), note.is_script))
    };
    assert!(found("x", None).expect_err("nothing").contains("has installed nothing"));
    write("tools/x/pyvenv.cfg", "");
    write("tools/x/bin/x", "#!/made/here/tools/x/bin/python\n");
    write("tools/x/bin/long", "#!/bin/sh\n'''exec' \"/made here/python\" \"$0\" \"$@\"\n' '''\n");
    write("tools/x/bin/native", "\u{7f}ELF");
    write("tools/x/bin/shell", "#!/bin/sh\necho\n");
    write("seawall-uv-bin/x", "");
    write("seawall-uv-bin/long", "");
    std::os::unix::fs::symlink("/bin/sh", folder.path().join("tools/x/bin/outside")).expect("linked");
    let script = |name: &str, is_script| Ok((format!("tools/x/bin/{name}"), is_script));
    assert_eq!(found("x[cli]==1.2", None), script("x", true));
    assert_eq!(found("x@latest", Some("long")), script("long", true));
    assert_eq!(found("x", Some("native")), script("native", false));
    assert_eq!(found("x", Some("shell")), script("shell", false));
    let refused = |package: &str, bin| found(package, bin).expect_err(package);
    assert!(refused("y==1", None).contains("no program y came with y==1; say which"));
    assert!(refused("y==1", None).contains("\"--from\", \"y==1\", \"PROGRAM\"], with one of long, x"));
    assert!(refused("x", Some("../x")).contains("no program"));
    assert!(refused("x", Some("outside")).contains("not in its package"));
}

#[test]
fn why_it_was_not_installed_is_told_and_whether_to_try_again() {
    let why = |words: &str| {
        let said = Said { succeeded: false, output: String::new(), last_words: words.to_owned() };
        failure::why(&request("x==9", None), &said)
    };
    for (words, expected) in [
        (
            "error: No solution found\n  cause: Because x was not found in the package registry and",
            "there is no package",
        ),
        ("Because there is no version of x==9 and you require x==9", "no such version of x==9"),
        ("Because all versions of x have no usable wheels and you require x", "install it yourself"),
        ("the current Python version (3.8.1) does not satisfy Python>=3.10", "uvx --python VERSION"),
        ("error: Failed to install entrypoints for `x`", "has no program to run"),
        (
            "error: Failed to fetch: `http://h/x/`\n  Caused by: HTTP status client error (401 Unauthorized)",
            "does not give",
        ),
    ] {
        let failed = why(words);
        assert!(matches!(&failed, StartError::Permanent(why) if why.contains(expected)), "{failed}");
    }
    let failed = why("error: Failed to fetch: `https://h/x/`\n  Caused by: client error (Connect)");
    assert!(matches!(&failed, StartError::Transient(why) if why.contains("cannot be reached")), "{failed}");
    let failed = why("something else");
    assert!(matches!(&failed, StartError::Transient(why) if why.contains("something else")), "{failed}");
}
