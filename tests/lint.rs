//! `seawall launchd lint` finds in any property list what launchd would silently ignore or
//! never keep, says nothing of what it takes, and no file brings it down.

mod support;

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    process::Command,
};

use support::{
    scratch::Scratch,
    units::{seawall, text},
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// What a lint of one text says.
fn lint(body: &str, name: &str, strict: bool) -> (bool, String) {
    let folder = Scratch::new();
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\">\n";
    let file = folder.write(name, &format!("{head}<dict>\n{body}\n</dict>\n</plist>\n"));
    let words = ["launchd", "lint", file.to_str().expect("UTF-8"), "--strict"];
    let output = seawall(if strict { &words } else { &words[..3] }, &repository().join("servers.toml"), folder.path());
    (output.status.success(), text(&output))
}

const SOUND: &str = "<key>Label</key><string>com.example.job</string>
    <key>ProgramArguments</key><array><string>/bin/sh</string></array>";

#[test]
fn lint_finds_what_launchd_would_silently_ignore() {
    for (body, expected) in [
        ("<key>ExitTimeout</key><integer>45</integer>", "did you mean ExitTimeOut?"),
        ("<key>KeepAlive</key><dict><key>SuccesfulExit</key><false/></dict>", "did you mean SuccessfulExit?"),
        ("<key>RunAtload</key><true/>", "did you mean RunAtLoad?"),
        ("<key>Flavour</key><string>x</string>", "is no key of launchd"),
        ("<key>RunAtLoad</key><string>true</string>", "is a <string>, and launchd wants <true/> or <false/>"),
        ("<key>ExitTimeOut</key><string>45</string>", "launchd wants an <integer>"),
        ("<key>ThrottleInterval</key><integer>5</integer>", "never starts a job twice within 10 seconds"),
        ("<key>StartInterval</key><integer>9</integer>", "never starts a job twice within 10 seconds"),
        (
            "<key>StartCalendarInterval</key><dict><key>Hour</key><integer>4</integer></dict>\
             <key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>",
            "KeepAlive: on a job with a schedule",
        ),
        (
            "<key>StartInterval</key><integer>600</integer><key>KeepAlive</key><true/>",
            "KeepAlive: on a job with a schedule",
        ),
        ("<key>StartCalendarInterval</key><dict><key>Hour</key><integer>24</integer></dict>", "write 0 to 23"),
        ("<key>StartCalendarInterval</key><dict><key>Weekday</key><string>Mon</string></dict>", "wants an <integer>"),
        ("<key>StandardOutPath</key><string>~/x.log</string>", "begins with \"~\""),
        ("<key>StandardErrorPath</key><string>logs/x.log</string>", "is a relative path"),
        ("<key>WorkingDirectory</key><string>${HOME}/x</string>", "launchd expands no variables"),
        ("<key>EnvironmentVariables</key><dict><key>PATH</key><string>/x:$PATH</string></dict>", "is not expanded"),
        ("<key>EnvironmentVariables</key><dict><key>N</key><integer>1</integer></dict>", "wants a <string>"),
        ("<key>ProcessType</key><string>Backgroud</string>", "knows Background, Standard, Adaptive, Interactive"),
        ("<key>Nice</key><integer>21</integer>", "write -20 to 20"),
        ("<key>Nice</key><integer>-21</integer>", "write -20 to 20"),
        ("<key>ExitTimeOut</key><integer>-1</integer>", "no time is below 0"),
        ("<key>TimeOut</key><integer>-1</integer>", "no time is below 0"),
        (
            "<key>KeepAlive</key><dict><key>PathState</key><dict><key>/x</key><string>a</string></dict></dict>",
            "KeepAlive.PathState./x: is a <string>, and launchd wants <true/> or <false/>",
        ),
        ("<key>KeepAlive</key><dict><key>OtherJobEnabled</key><true/></dict>", "wants a <dict>"),
        ("<key>StartCalendarInterval</key><dict><key>Hours</key><integer>1</integer></dict>", "did you mean Hour?"),
        (
            "<key>StartCalendarInterval</key><array><dict><key>Day</key><integer>0</integer></dict></array>",
            "StartCalendarInterval.0.Day: is 0; write 1 to 31",
        ),
        (
            "<key>StartCalendarInterval</key><array><integer>3</integer></array>",
            "StartCalendarInterval.0: is an <integer>",
        ),
        ("<key>StartCalendarInterval</key><dict><key>Minute</key><integer>-1</integer></dict>", "write 0 to 59"),
        ("<key>StartCalendarInterval</key><dict><key>Month</key><integer>13</integer></dict>", "write 1 to 12"),
        ("<key>StartCalendarInterval</key><dict><key>Weekday</key><integer>8</integer></dict>", "write 0 to 7"),
        (
            "<key>Sockets</key><dict><key>L</key><dict><key>SockServicename</key><string>1</string></dict></dict>",
            "Sockets.L.SockServicename: is no key of launchd, which ignores it; did you mean SockServiceName?",
        ),
        (
            "<key>Sockets</key><dict><key>L</key><array><dict><key>SockType</key><string>tcp</string></dict></array></dict>",
            "Sockets.L.0.SockType: is \"tcp\"; launchd knows stream, dgram, seqpacket",
        ),
        (
            "<key>MachServices</key><dict><key>com.x</key><dict><key>ResetOnClose</key><true/></dict></dict>",
            "did you mean ResetAtClose?",
        ),
        ("<key>SoftResourceLimits</key><dict><key>NumberOfFile</key><integer>9</integer></dict>", "NumberOfFiles?"),
        ("<key>inetdCompatibility</key><dict><key>wait</key><true/></dict>", "did you mean Wait?"),
        ("<key>LimitLoadToSessionType</key><array><string>Aqa</string></array>", "launchd knows Aqua"),
        ("<key>RunAtLoad</key><true/>\n<key>RunAtLoad</key><false/>", ":6: error: RunAtLoad: is there twice"),
        (
            "<key>KeepAlive</key><dict><key>Crashed</key><true/><key>Crashed</key><true/></dict>",
            "KeepAlive.Crashed: is there twice",
        ),
        ("<key>StandardOutPath</key><string>$HOME/x.log</string>", "holds $HOME, and launchd expands no variables"),
        ("<key>StandardOutPath</key><string>/Users/$USER/x.log</string>", "holds $USER"),
        ("<key>WatchPaths</key><array><string>~/x</string></array>", "WatchPaths.0: begins with \"~\""),
        ("<key>QueueDirectories</key><array><string>in</string></array>", "is a relative path"),
        ("<key>EnvironmentVariables</key><dict><key>D</key><string>$HOME/x</string></dict>", "holds $HOME"),
        ("<key>StandardOutPath</key><string>/tmp/a & b.log</string>", "write &amp; for an ampersand"),
    ] {
        let (passed, said) = lint(&format!("{SOUND}{body}"), "com.example.job.plist", false);
        assert!(!passed && said.contains(expected), "{body}: {said}");
    }
    for arguments in ["<string>/bin/x</string><string>$HOME/y</string>", "<string>$HOME/bin/x</string>"] {
        let body = format!(
            "<key>Label</key><string>com.example.job</string><key>ProgramArguments</key><array>{arguments}</array>"
        );
        let (passed, said) = lint(&body, "com.example.job.plist", false);
        assert!(!passed && said.contains("holds $HOME"), "{arguments}: {said}");
    }
    let (passed, said) = lint(SOUND, "com.example.other.plist", false);
    assert!(!passed && said.contains("name it com.example.job.plist"), "{said}");
    let (passed, said) = lint("<key>Label</key><string>com.example.job</string>", "com.example.job.plist", false);
    assert!(!passed && said.contains("there is nothing to run"), "{said}");
    let (passed, said) = lint(SOUND, "com.example.job.plist", true);
    assert!(passed && said.is_empty(), "{said}");
}

#[test]
fn lint_says_nothing_of_what_launchd_takes() {
    for body in [
        "<key>EnvironmentVariables</key><dict><key>URL</key><string><![CDATA[http://x/?a=1&b=2]]></string></dict>",
        "<key>WorkingDirectory</key><string><![CDATA[/]]></string>",
        "<!-- a & b, <dict> and ${HOME} -->",
        "<key>ProcessType</key><string>background</string><key>Nice</key><integer>-20</integer>",
        "<key>ExitTimeOut</key><integer>1</integer><key>Umask</key><integer>18</integer>",
        "<key>KeepAlive</key><dict><key>PathState</key><dict><key>/x</key><true/></dict>\
         <key>OtherJobEnabled</key><dict><key>com.x</key><false/></dict><key>NetworkState</key><true/></dict>",
        "<key>StartCalendarInterval</key><array><dict><key>Weekday</key><integer>7</integer></dict>\
         <dict><key>Day</key><integer>31</integer><key>Month</key><integer>12</integer></dict></array>",
        "<key>Sockets</key><dict><key>L</key><array><dict><key>SockServiceName</key><integer>80</integer>\
         <key>SockFamily</key><string>IPv4</string><key>Bonjour</key><array><string>a</string></array></dict></array></dict>",
        "<key>MachServices</key><dict><key>com.x</key><true/><key>com.y</key><dict><key>ResetAtClose</key><true/></dict></dict>",
        "<key>LimitLoadToSessionType</key><string>Aqua</string>",
        "<key>EnvironmentVariables</key><dict><key>PRICE</key><string>5$ or $5</string></dict>",
    ] {
        let (passed, said) = lint(&format!("{SOUND}{body}"), "com.example.job.plist", true);
        assert!(passed && said.is_empty(), "{body}: {said}");
    }
    // A shell expands both itself, and an awk has variables of its own.
    for arguments in [
        "<string>/bin/sh</string><string>-lc</string><string>exec ~/bin/x ${HOME} $HOME</string><string>~/y</string>",
        "<string>/bin/sh</string><string>x</string><string>{print $NF}</string>",
    ] {
        let body = format!(
            "<key>Label</key><string>com.example.job</string><key>ProgramArguments</key><array>{arguments}</array>"
        );
        let (passed, said) = lint(&body, "com.example.job.plist", true);
        assert!(passed && said.is_empty(), "{arguments}: {said}");
    }
}

#[test]
fn lint_reads_binary_property_lists_and_names_keys_by_their_path() {
    let text = format!(
        "<plist version=\"1.0\"><dict>{SOUND}<key>KeepAlive</key><dict><key>Crash</key><true/></dict>\
         <key>StartCalendarInterval</key><array><dict><key>Hour</key><integer>25</integer></dict></array></dict></plist>"
    );
    let job = plist::Value::from_reader(Cursor::new(text)).expect("a property list");
    let folder = Scratch::new();
    let file = folder.file("com.example.job.plist");
    job.to_file_binary(&file).expect("written");
    let file = file.to_str().expect("UTF-8");
    let output = seawall(&["launchd", "lint", file], &repository().join("servers.toml"), folder.path());
    let said = self::text(&output);
    assert!(!output.status.success(), "{said}");
    for expected in [
        format!("{file}: error: KeepAlive.Crash: is no key of launchd, which ignores it; did you mean Crashed?"),
        format!("{file}: error: StartCalendarInterval.0.Hour: is 25; write 0 to 23"),
    ] {
        assert!(said.lines().any(|line| line == expected), "{expected}: {said}");
    }
    let sound = format!("<plist version=\"1.0\"><dict>{SOUND}</dict></plist>");
    plist::Value::from_reader(Cursor::new(sound)).expect("sound").to_file_binary(file).expect("written");
    let output = seawall(&["launchd", "lint", "--strict", file], &repository().join("servers.toml"), folder.path());
    assert!(output.status.success() && self::text(&output).is_empty(), "{}", self::text(&output));
}

#[test]
fn no_file_brings_lint_down_or_keeps_it_from_the_others() {
    let folder = Scratch::new();
    let head = "<plist version=\"1.0\">";
    let deep = format!("{head}{}{}</plist>", "<array>".repeat(50_000), "</array>".repeat(50_000));
    let deep_file = folder.write("deep.plist", &deep);
    let binary = folder.file("binary.plist");
    fs::write(
        &binary,
        b"bplist00\xa1\x00\x08\x00\x00\x00\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00\x00\x00\x01\
        \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0a",
    )
    .expect("written");
    let large = folder.write("large.plist", &format!("{head}<!--{}--><dict/></plist>", " ".repeat(2 << 20)));
    let pipe = folder.file("pipe.plist");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is there");
    assert!(made.success());
    let missing = folder.file("missing.plist");
    let last =
        folder.write("com.example.job.plist", &format!("{head}<dict>{SOUND}<key>Nice</key><true/></dict></plist>"));
    let files = [&deep_file, &binary, &large, &pipe, &missing, &PathBuf::from("/dev/zero"), &PathBuf::from("/"), &last];
    let words: Vec<&str> = files.iter().map(|file| file.to_str().expect("UTF-8")).collect();
    let output =
        seawall(&[&["launchd", "lint"], &words[..]].concat(), &repository().join("servers.toml"), folder.path());
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let expected = [
        "error: is nested more than 64 deep",
        "error: is nested more than 64 deep",
        "error: is larger than 1024 KiB",
        "error: is a pipe, and not a file",
        "error: cannot be read: No such file",
        "error: is a device, and not a file",
        "error: is a folder, and not a file",
        "Nice: is a boolean, and launchd wants an <integer>",
    ];
    for (file, expected) in words.iter().zip(expected) {
        let of_it = |line: &&str| line.starts_with(file) && line.contains(expected);
        assert!(said.lines().any(|line| of_it(&line)), "{file}: {expected}: {said}");
    }
}

#[test]
fn what_this_machine_lacks_is_a_warning_and_strict_makes_it_an_error() {
    let body = "<key>Label</key><string>com.example.job</string>
        <key>ProgramArguments</key><array><string>/no/such/program</string></array>
        <key>StandardOutPath</key><string>/no/such/folder/x.log</string>";
    let (passed, said) = lint(body, "com.example.job.plist", false);
    assert!(
        passed && said.contains("/no/such/program does not exist") && said.contains("/no/such/folder does"),
        "{said}"
    );
    assert!(!lint(body, "com.example.job.plist", true).0);
}

/// What a lint of one file of these bytes says.
fn lint_bytes(bytes: &[u8]) -> (bool, String) {
    let folder = Scratch::new();
    let file = folder.file("com.example.job.plist");
    fs::write(&file, bytes).expect("written");
    let words = ["launchd", "lint", file.to_str().expect("UTF-8")];
    let output = seawall(&words, &repository().join("servers.toml"), folder.path());
    (output.status.success(), text(&output))
}

#[test]
fn a_file_in_another_encoding_or_form_is_told_by_what_it_is() {
    let list = format!("<plist version=\"1.0\"><dict>{SOUND}</dict></plist>");
    let wide = |width: usize, is_big: bool, mark: bool| {
        let chars = mark.then_some('\u{feff}').into_iter().chain(list.chars());
        let bytes = chars.flat_map(|c| {
            let all = if is_big { u32::from(c).to_be_bytes() } else { u32::from(c).to_le_bytes() };
            if is_big { all[4 - width..].to_vec() } else { all[..width].to_vec() }
        });
        bytes.collect::<Vec<u8>>()
    };
    for is_big in [false, true] {
        for mark in [false, true] {
            for (width, name) in [(2, "UTF-16"), (4, "UTF-32")] {
                let (passed, said) = lint_bytes(&wide(width, is_big, mark));
                assert!(!passed && said.contains(&format!("is {name}; `plutil")), "{name} {is_big} {mark}: {said}");
            }
        }
    }
    for other in [&b"\x1f\x8b\x08\x00\xff"[..], b"\0\0\0\0\0", b"{ Label = \"x\"; }", b"{\"Label\":\"x\"}"] {
        let (passed, said) = lint_bytes(other);
        assert!(!passed && said.contains("is neither an XML nor a binary property list"), "{said}");
    }
    assert!(lint_bytes(format!("\u{feff}{list}").as_bytes()).0);
}

#[test]
fn what_is_no_character_and_no_key_is_said() {
    let (passed, said) = lint(&format!("{SOUND}<key></key><true/>"), "com.example.job.plist", false);
    assert!(!passed && said.contains("has an empty <key>"), "{said}");
    let body = format!("{SOUND}<key>UserName</key><string>a&#0;b</string>");
    let (passed, said) = lint(&body, "com.example.job.plist", false);
    assert!(!passed && said.contains("&#0;"), "{said}");
}

#[test]
fn of_thousands_of_mistakes_a_hundred_are_told() {
    for key in ["<key>k{}</key>", "<key>ExitTimeou{}</key>", "<key>RunAtLoad</key>"] {
        let wrong: String = (0..20_000).map(|n| key.replace("{}", &n.to_string()) + "<true/>").collect();
        let (passed, said) = lint(&format!("{SOUND}{wrong}"), "com.example.job.plist", false);
        assert_eq!(said.lines().count(), 101, "{key}");
        assert!(!passed && said.contains("has more wrong with it than these 100"), "{key}");
    }
}
