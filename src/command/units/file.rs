//! The file of a unit: written whole, with what was there kept beside it, and compared.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::tool::Tool;
use crate::{id::unix_ms, say::note};

/// One file that a unit is written to.
#[derive(Clone, Debug)]
pub(in crate::command) struct UnitFile {
    pub(in crate::command) path: PathBuf,
    pub(in crate::command) text: String,
}

impl UnitFile {
    pub(in crate::command) fn installed(&self) -> Option<String> {
        text(&self.path)
    }

    pub(in crate::command) fn is_current(&self) -> bool {
        self.installed().as_ref() == Some(&self.text)
    }

    /// Puts the file in place whole; what was there before stays beside it.
    pub(in crate::command) fn write(&self) -> anyhow::Result<()> {
        let folder = self.path.parent().context("a file has a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        back_up(&self.path)?;
        let half = self.path.with_extension("half-written");
        let written = fs::write(&half, &self.text)
            .and_then(|()| fs::set_permissions(&half, fs::Permissions::from_mode(0o644)))
            .and_then(|()| fs::rename(&half, &self.path));
        written.with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

/// What a file says, whatever form somebody has brought it into; `None` where it cannot be read.
pub(in crate::command) fn text(path: &Path) -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned())
}

/// Copies a file to a name that no supervisor reads.
fn back_up(path: &Path) -> anyhow::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".backup-{}", unix_ms()));
    match fs::copy(path, PathBuf::from(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be copied before it is changed", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a file of which a copy stays.
pub(in crate::command) fn remove(path: &Path) -> anyhow::Result<()> {
    back_up(path)?;
    fs::remove_file(path).with_context(|| format!("{} cannot be removed", path.display()))
}

/// Makes a folder and what leads to it, all of `owner` where root makes them for somebody
/// else: a daemon that may not write where its output goes is not started.
pub(in crate::command) fn make_folder(folder: &Path, owner: Option<&str>) -> anyhow::Result<()> {
    let made: Vec<&Path> = folder.ancestors().take_while(|part| !part.exists()).collect();
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let Some(owner) = owner.filter(|_| rustix::process::getuid().is_root()) else { return Ok(()) };
    let id = Tool { program: "id".to_owned(), dry_run: false };
    let number = |flag| id.ask(&[flag, owner]).and_then(|said| said.trim().parse::<u32>().ok());
    let (uid, gid) = (number("-u"), number("-g"));
    for part in made {
        if uid.is_none() || chown(part, uid, gid).is_err() {
            note!("seawall: {} cannot be given to {owner}, who has to write there", part.display());
        }
    }
    Ok(())
}

/// The lines that differ, with a few around them left out: what a person compares.
pub(in crate::command) fn diff(before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    // Longest common tails; the files are short.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            out.push_str(&format!("- {}\n", old[i]));
            i += 1;
        } else {
            out.push_str(&format!("+ {}\n", new[j]));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_has_the_lines_that_differ() {
        assert_eq!(diff("a\nb\nc\n", "a\nx\nc\nd\n"), "- b\n+ x\n+ d\n");
        assert_eq!(diff("a\n", "a\n"), "");
        assert_eq!(diff("", "a\n"), "+ a\n");
    }
}
