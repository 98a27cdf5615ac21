//! The folders of temporary files that a server had for itself, taken away once it has ended.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// With all that is in it, whatever modes a server gave it. No folder is named by an empty path.
pub(super) fn remove(folder: &Path) {
    if !folder.as_os_str().is_empty() && fs::remove_dir_all(folder).is_err() {
        open_up(folder);
        let _ = fs::remove_dir_all(folder);
    }
}

/// Gives this user all rights to the folder and to those below it. No link is followed: those
/// who could put one in a folder's place have ended.
fn open_up(folder: &Path) {
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        let _ = fs::set_permissions(&folder, Permissions::from_mode(0o700));
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        pending.extend(folders.map(|entry| entry.path()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A superuser is let in anywhere: for others this is what it is for.
    #[test]
    fn what_lets_nobody_in_goes_too_and_what_a_link_leads_to_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let (private, kept) = (folder.path().join("private"), folder.path().join("kept"));
        fs::create_dir_all(private.join("closed/deep")).expect("made");
        fs::create_dir(&kept).expect("made");
        fs::write(kept.join("file"), "x").expect("written");
        std::os::unix::fs::symlink(&kept, private.join("link")).expect("linked");
        for closed in ["closed/deep", "closed"] {
            fs::set_permissions(private.join(closed), Permissions::from_mode(0o000)).expect("set");
        }
        open_up(&private);
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&private.join("closed/deep")), mode(&kept) & 0o700), (0o700, 0o700));
        remove(&private);
        assert!(!private.exists() && kept.join("file").exists());
        remove(Path::new(""));
    }
}
