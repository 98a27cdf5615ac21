//! `${cmd:…}`: a value that a command says, such as a keyring's. It is run by a shell, as
//! whoever runs seawall, in the folder of servers.toml; what it says is told to nobody.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// Long enough to type a password into the keyring's own window.
const TIMEOUT: Duration = Duration::from_secs(30);
const VALUE_MAX_BYTES: u64 = 64 << 10;
/// Its complaint is shown; its value never is.
const COMPLAINT_MAX_CHARS: usize = 200;

/// What `command` says, without the line break at its end; the error says why it does not.
pub fn value(command: &str, folder: &Path) -> Result<String, String> {
    let shown = crate::text::quote(command, 100);
    let because = |why: &dyn std::fmt::Display| format!("the command `{shown}` {why}");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Its own group: what it started ends with it.
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    let mut child = shell.spawn().map_err(|error| because(&format!("cannot be run: {error}")))?;
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(because(&"has no output"));
    };
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut said, mut complaint) = (Vec::new(), Vec::new());
        let read = (&mut stdout).take(VALUE_MAX_BYTES + 1).read_to_end(&mut said);
        drop(stdout);
        let _ = (&mut stderr).take(VALUE_MAX_BYTES).read_to_end(&mut complaint);
        let _ = sender.send((read.map(|_| said), complaint));
    });
    let heard = ended.recv_timeout(TIMEOUT);
    if heard.is_err()
        && let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let status = child.wait().map_err(|error| because(&format!("cannot be waited for: {error}")))?;
    let Ok((said, complaint)) = heard else {
        return Err(because(&format!("said nothing for {}", crate::text::duration(TIMEOUT))));
    };
    let said = said.map_err(|error| because(&format!("cannot be heard: {error}")))?;
    // Before how it ended: whoever is not heard out fails for that.
    if said.len() as u64 > VALUE_MAX_BYTES {
        return Err(because(&"said more than 64 KiB"));
    }
    if !status.success() {
        let complaint = String::from_utf8_lossy(&complaint);
        let last = complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
        return Err(because(&format!("failed: {}", crate::text::quote(last, COMPLAINT_MAX_CHARS))));
    }
    let mut said = String::from_utf8(said).map_err(|_| because(&"said what is not UTF-8"))?;
    if said.contains('\0') {
        return Err(because(&"said a NUL character"));
    }
    said.truncate(said.trim_end_matches(['\r', '\n']).len());
    if said.is_empty() { Err(because(&"said nothing")) } else { Ok(said) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_a_value_and_its_failure_is_told_without_it() {
        let say = |command: &str| value(command, Path::new("/"));
        assert_eq!(say("printf 'a b\\n'"), Ok("a b".to_owned()));
        assert_eq!(say("pwd"), Ok("/".to_owned()));
        let failed = say("echo s3cret; echo locked >&2; exit 1").expect_err("it failed");
        assert!(failed.ends_with("failed: locked"), "{failed}");
        assert!(say("true").expect_err("nothing").ends_with("said nothing"));
        assert!(say("printf 'a\\0b'").expect_err("NUL").contains("NUL"));
        assert!(say("head -c 100000 /dev/zero | tr '\\0' x").expect_err("much").contains("64 KiB"));
    }
}
