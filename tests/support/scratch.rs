//! A folder for one test, gone with its value.

use std::path::{Path, PathBuf};

pub struct Scratch(std::sync::Arc<tempfile::TempDir>);

impl Scratch {
    pub fn new() -> Scratch {
        let folder = tempfile::Builder::new().prefix("seawall-test-").tempdir();
        let folder = folder.expect("a temporary folder can be made");
        // Confined servers of root run as somebody else, who must get here.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("it is ours");
        Scratch(folder.into())
    }

    /// The same folder, gone with the last of them.
    pub fn again(&self) -> Scratch {
        Scratch(self.0.clone())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Written whole or not at all, as an editor would that cares.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder can be made");
        let half = path.with_extension("half-written");
        std::fs::write(&half, text).expect("the file can be written");
        std::fs::rename(&half, &path).expect("the file can be renamed");
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
