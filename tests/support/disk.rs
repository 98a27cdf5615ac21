//! A small disk of its own, unmounted at the end.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` where it cannot be had.
    pub fn of(options: &str) -> Option<Disk> {
        let folder = tempfile::tempdir().expect("folder");
        let mounted = cfg!(target_os = "linux")
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(folder.path())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: mounting a disk takes root on Linux");
        }
        mounted.then_some(Disk(folder))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// To the last byte; there is room again once the file that this returns is removed.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut file = fs::File::create(&ballast).expect("a name takes no room");
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        ballast
    }

    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(self.0.path()).status().expect("mount");
        assert!(status.success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, as the test's own handles may still be open when it fails.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
