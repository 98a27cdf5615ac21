//! Files that a program finds in its private home when it begins: in memory, seen by
//! nobody outside, and gone with its namespaces however it ends. For credentials, which
//! are to rest on no disk.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Texts by their paths below the private home.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaidFiles(Vec<(PathBuf, String)>);

impl LaidFiles {
    pub fn push(&mut self, path: impl Into<PathBuf>, text: String) {
        self.0.push((path.into(), text));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(PathBuf, String)> {
        self.0.iter()
    }
}

impl fmt::Debug for LaidFiles {
    /// What is in them may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(path, _)| path)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_them_is_not_shown() {
        let mut files = LaidFiles::default();
        files.push("npmrc", "s3cret".to_owned());
        assert_eq!(format!("{files:?}"), "[\"npmrc\"]");
    }
}
