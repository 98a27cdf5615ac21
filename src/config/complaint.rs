//! What is wrong with a servers.toml: each complaint names file, line, column, key
//! and value, and says what would be right. They come all at once.

use std::{fmt, path::PathBuf};

use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Complaint {
    pub file: PathBuf,
    /// `None` where the file as a whole could not be read.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// `servers.files.timeout`; empty where no key is to blame.
    pub key: String,
    /// The value as it stands in the file, shortened; `***` where it is a secret.
    pub value: Option<String>,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

/// Where in the file, both counted from one, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        match &self.value {
            Some(value) => write!(f, ": {} = {value}", self.key)?,
            None if self.key.is_empty() => {}
            None => write!(f, ": {}", self.key)?,
        }
        write!(f, ": {}", self.message)
    }
}

/// All that is wrong with one file, by line; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    pub(super) fn new(mut complaints: Vec<Complaint>) -> Self {
        // Stable, so that two complaints about one place keep the order they were found in.
        complaints.sort_by_key(|complaint| complaint.place);
        Complaints(complaints)
    }
}

impl From<Complaint> for Complaints {
    fn from(only: Complaint) -> Self {
        Complaints(vec![only])
    }
}

impl std::ops::Deref for Complaints {
    type Target = [Complaint];
    fn deref(&self) -> &[Complaint] {
        &self.0
    }
}

/// One complaint a line, without a line break at the end.
impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, complaint) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            complaint.fmt(f)?;
        }
        Ok(())
    }
}
