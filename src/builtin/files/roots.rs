//! From a path that a model wrote to a place beneath one of the directories.

use std::path::{Component, Path, PathBuf};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::confine::Root;
use crate::text;

/// Directories that one server may be given.
const DIRECTORIES_MAX: usize = 64;
const PATH_CHARS_SHOWN: usize = 200;

/// Why the directories cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no directory was given")]
    None,
    #[error("{0} directories were given, and {DIRECTORIES_MAX} is the most")]
    TooMany(usize),
    #[error("the directory {} cannot be opened: {source}", path.display())]
    Unusable { path: PathBuf, source: std::io::Error },
}

/// The directories that a server may use, each with the name it is called by.
#[derive(Debug)]
pub(super) struct Roots(Vec<Named>);

#[derive(Debug)]
struct Named {
    /// Its last component; with a number where two would be the same.
    name: String,
    /// As it was written, made absolute: what a user may well write again.
    written: PathBuf,
    root: Root,
}

/// A place beneath one of the directories. The path may lead out of it through a
/// link: that is found out when it is opened.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) root: &'a Root,
    /// Normal components only; empty for the directory itself.
    pub(super) relative: PathBuf,
    /// The path for people and models.
    pub(super) shown: String,
}

impl Roots {
    pub(super) fn open(directories: &[PathBuf]) -> Result<Roots, OpenError> {
        match directories.len() {
            0 => return Err(OpenError::None),
            1..=DIRECTORIES_MAX => {}
            many => return Err(OpenError::TooMany(many)),
        }
        let mut named: Vec<Named> = Vec::with_capacity(directories.len());
        for path in directories {
            let unusable = |source| OpenError::Unusable { path: path.clone(), source };
            let root = Root::open(path).map_err(unusable)?;
            let written = std::path::absolute(path).map_err(unusable)?;
            let plain = root.path().file_name().map_or("root".into(), |name| name.to_string_lossy().into_owned());
            let name = (1..)
                .map(|number| if number == 1 { plain.clone() } else { format!("{plain}-{number}") })
                .find(|name| named.iter().all(|other| other.name != *name))
                .unwrap_or(plain);
            named.push(Named { name, written, root });
        }
        Ok(Roots(named))
    }

    /// What paths begin with when there is more than one directory.
    pub(super) fn names(&self) -> Option<Vec<String>> {
        (self.0.len() > 1).then(|| self.0.iter().map(|named| named.name.clone()).collect())
    }

    /// One line about the directories, for the instructions and for refusals.
    pub(super) fn described(&self) -> String {
        let paths = self.0.iter().map(|named| match self.0.len() {
            1 => named.root.path().display().to_string(),
            _ => format!("{} ({})", named.name, named.root.path().display()),
        });
        paths.collect::<Vec<_>>().join(", ")
    }

    /// The place that `written` stands for. `Err` is a sentence.
    pub(super) fn find(&self, written: &str) -> Result<Place<'_>, String> {
        let path = Path::new(written);
        let refuse = |why: &str| Err(format!("the path \"{}\" {why}", text::quote(written, PATH_CHARS_SHOWN)));
        if written.contains('\0') {
            return refuse("contains a NUL character");
        }
        if path.components().any(|component| component == Component::ParentDir) {
            return refuse("contains `..`: write it without");
        }
        if path.is_absolute() {
            let beneath = self.0.iter().filter_map(|named| {
                let rest = path.strip_prefix(named.root.path()).or_else(|_| path.strip_prefix(&named.written)).ok()?;
                Some((named, rest))
            });
            // Of directories within each other, the innermost is meant.
            return match beneath.min_by_key(|(_, rest)| rest.components().count()) {
                Some((named, rest)) => Ok(self.place(named, rest)),
                None => refuse(&format!("is outside the directories of this server: {}", self.described())),
            };
        }
        match self.0.as_slice() {
            [only] => Ok(self.place(only, path)),
            several => {
                let mut components = path.components().filter(|component| *component != Component::CurDir);
                let first = components.next().map(Component::as_os_str);
                match several.iter().find(|named| first.is_some_and(|first| *first == *named.name)) {
                    Some(named) => Ok(self.place(named, components.collect::<PathBuf>().as_path())),
                    None => refuse(&format!("begins with none of this server's directories: {}", self.described())),
                }
            }
        }
    }

    fn place<'a>(&'a self, named: &'a Named, relative: &Path) -> Place<'a> {
        let relative: PathBuf =
            relative.components().filter(|component| matches!(component, Component::Normal(_))).collect();
        let shown = match self.0.len() {
            1 if relative.as_os_str().is_empty() => ".".to_owned(),
            1 => relative.display().to_string(),
            _ => Path::new(&named.name).join(&relative).display().to_string(),
        };
        Place { root: &named.root, relative, shown }
    }
}

impl Place<'_> {
    pub(super) fn open(&self, flags: OFlags) -> Result<std::fs::File, String> {
        let opened = self.root.open_at(&self.relative, flags, Mode::empty());
        opened.map(std::fs::File::from).map_err(|errno| self.refusal(errno))
    }

    /// How the path of something in this place reads.
    pub(super) fn shown_below(&self, below: &Path) -> String {
        match self.shown.as_str() {
            "." => below.display().to_string(),
            shown => Path::new(shown).join(below).display().to_string(),
        }
    }

    /// The sentence for an error of the system about this place.
    pub(super) fn refusal(&self, errno: Errno) -> String {
        let path = text::quote(&self.shown, PATH_CHARS_SHOWN);
        match errno {
            Errno::NOENT => format!("\"{path}\" does not exist"),
            Errno::XDEV => format!("\"{path}\" leads out of the directories of this server, which is not allowed"),
            Errno::LOOP => {
                format!("\"{path}\" is or passes a symbolic link that is not followed: name what it points to")
            }
            Errno::NOTDIR => format!("\"{path}\" is not a directory, or something before its last part is not"),
            Errno::ISDIR => format!("\"{path}\" is a directory"),
            Errno::ACCESS | Errno::PERM => format!("the system does not allow this on \"{path}\""),
            Errno::EXIST => format!("\"{path}\" exists already"),
            Errno::NOSPC | Errno::DQUOT => format!("there is no space left for \"{path}\""),
            Errno::NAMETOOLONG => format!("\"{path}\" is too long for a path"),
            Errno::ROFS => format!("\"{path}\" is on a read-only filesystem"),
            other => format!("\"{path}\" cannot be used: {}", std::io::Error::from(other)),
        }
    }

    pub(super) fn failed(&self, error: &std::io::Error) -> String {
        self.refusal(Errno::from_io_error(error).unwrap_or(Errno::IO))
    }

    /// A sentence about this place.
    pub(super) fn says(&self, what: &str) -> String {
        format!("\"{}\" {what}", text::quote(&self.shown, PATH_CHARS_SHOWN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(names: &[&str]) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let paths: Vec<PathBuf> = names.iter().map(|name| dir.path().join(name)).collect();
        for path in &paths {
            std::fs::create_dir_all(path).expect("a directory");
        }
        let roots = Roots::open(&paths).expect("the directories are there");
        (dir, roots)
    }

    #[test]
    fn one_directory_takes_paths_relative_to_it() {
        let (dir, roots) = roots(&["notes"]);
        let place = roots.find("./a/./b.txt").expect("a place");
        assert_eq!((place.relative.as_path(), place.shown.as_str()), (Path::new("a/b.txt"), "a/b.txt"));
        for itself in ["", ".", "./"] {
            assert_eq!(roots.find(itself).expect("a place").shown, ".");
        }
        let absolute = dir.path().join("notes/a/b.txt");
        assert_eq!(roots.find(absolute.to_str().expect("UTF-8")).expect("a place").shown, "a/b.txt");
    }

    #[test]
    fn several_directories_are_told_apart_by_name() {
        let (dir, roots) = roots(&["x/notes", "y/notes", "x/notes/deep"]);
        assert_eq!(roots.names().expect("names"), ["notes", "notes-2", "deep"]);
        let place = roots.find("notes-2/a.txt").expect("a place");
        assert_eq!(place.root.path().file_name(), Some("notes".as_ref()));
        assert!(place.root.path().ends_with("y/notes"));
        assert_eq!((place.relative.as_path(), place.shown.as_str()), (Path::new("a.txt"), "notes-2/a.txt"));
        let innermost = dir.path().join("x/notes/deep/a.txt");
        assert_eq!(roots.find(innermost.to_str().expect("UTF-8")).expect("a place").shown, "deep/a.txt");
        assert!(roots.find("a.txt").expect_err("no name").contains("begins with none"));
    }

    #[test]
    fn paths_that_mean_to_escape_are_refused_by_name() {
        let (_dir, roots) = roots(&["notes"]);
        for (path, why) in [
            ("../secret", "contains `..`"),
            ("a/../../secret", "contains `..`"),
            ("/etc/passwd", "is outside the directories"),
            ("a\0b", "NUL"),
        ] {
            let refusal = roots.find(path).expect_err(path);
            assert!(refusal.contains(why) && refusal.contains(&text::quote(path, 200)), "{refusal}");
        }
    }
}
