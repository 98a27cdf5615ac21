//! servers.toml: understood, or every complaint has a place in the file.

use std::path::Path;

use seawall::gateway::reload::parse_with;

pub(crate) const WORDS: &[&str] = &[
    "\n[servers.a]\n",
    "\n[servers.a.tools.t]\n",
    "\n[servers.a.sandbox]\n",
    "\n[gateway]\n",
    "\n[defaults]\n",
    "\n[services.gateway]\n",
    "\n[[alerts]]\n",
    "command = [\"npx\"]\n",
    "builtin = \"events\"\n",
    "url = \"http://127.0.0.1:1/mcp\"\n",
    "headers = { A = \"b\" }\n",
    "listen = \"127.0.0.1:0\"\n",
    "timeout = \"50s\"\n",
    "max_duration = ",
    "breaker = { failures = 5, open_for = \"60s\" }\n",
    "rate_limit = \"off\"\n",
    "recycle = { calls = 1000, age = \"1h\", memory = \"1GiB\" }\n",
    "instances = { per_session = 8 }\n",
    "schedule = ",
    "\"99999999999999999999h\"",
    "\"-1s\"",
    "9223372036854775807",
    "-9223372036854775808",
    "1e308",
    "nan",
    "inf",
    "1979-05-27T07:32:00Z",
    "0xff",
    "true",
    "\"${HOME}\"",
    "\"${X:-y}\"",
    "\"${env:X}\"",
    "${",
    "\"~/x\"",
    "'''\n",
    "\"\"\"\n",
    "\"\\u0000\"",
    "a.b.c = ",
    "{ a = { a = { a = ",
    "[[[[[[[[[[[[",
    "\u{202e}",
    "\u{1b}[31m",
    "\r\n",
];

pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    // What it names on the disk is not its own doing.
    if text.contains("file:") {
        return;
    }
    let env = |name: &str| (name == "HOME").then(|| "/home/ada".to_owned());
    let path = Path::new("/home/ada/servers.toml");
    let Err(complaints) = parse_with(&text, path, &env) else {
        assert_eq!(parse_with(&text, path, &env), parse_with(&text, path, &env));
        return;
    };
    assert!(!complaints.is_empty());
    for complaint in complaints.iter() {
        let place = complaint.place.unwrap_or_else(|| panic!("it has no place: {complaint}"));
        let line = text.split('\n').nth(place.line - 1).unwrap_or_else(|| panic!("there is no such line: {complaint}"));
        assert!(place.column <= line.chars().count() + 1, "there is no such column: {complaint}");
        let told = complaint.to_string();
        assert!(!told.chars().any(char::is_control), "{told:?}");
        assert!(!complaint.message.is_empty());
    }
}
