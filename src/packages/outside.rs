//! What seawall runs outside of any sandbox to learn what is configured: npm, uv, and what
//! these run in turn, node and Pythons. None of it may be what a confined server of this
//! servers.toml could have planted: neither the file, nor a folder or a link on the way to
//! it, nor its interpreter, nor what it loads. The same holds for files of settings.
//!
//! Looked at just before it is run: what is found to lie where no server may write no server
//! can change meanwhile. Decides about paths alone and runs nothing.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::place;
use crate::{
    link::StartError,
    process::Command,
    sandbox::{first_line, on_the_way},
    text,
};

/// Which confined server may write where, of the servers.toml that is in force.
pub type Writers = Arc<Mutex<Vec<(String, PathBuf)>>>;

/// Interpreters of interpreters are followed so far.
const CHAIN_MAX: usize = 5;
const SETTINGS_MAX_BYTES: u64 = 64 << 10;
/// What uv tries to run, by the beginnings of its names.
const PYTHONS: [&str; 3] = ["python", "pypy", "graalpy"];

pub(super) struct Outside {
    /// Without links.
    writers: Vec<(String, PathBuf)>,
    path: Vec<PathBuf>,
}

impl Outside {
    pub(super) fn of(server: &Command, writers: &Writers) -> Self {
        let known = writers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let own = server.sandbox.write.iter().map(|folder| (server.name.clone(), folder.clone()));
        let all = known.into_iter().chain(own);
        let writers = all.filter_map(|(name, folder)| Some((name, folder.canonicalize().ok()?))).collect();
        let path = std::env::var_os("PATH").unwrap_or_default();
        // What is run has the root for its folder, and is itself looked up from there.
        let path = std::env::split_paths(&path).map(|folder| Path::new("/").join(folder)).collect();
        Outside { writers, path }
    }

    /// Of a program as it is written: a path, or a name for PATH.
    pub(super) fn program(&self, program: &str) -> Result<(), StartError> {
        if program.contains('/') {
            return self.file(&Path::new("/").join(program), CHAIN_MAX);
        }
        self.named(program, CHAIN_MAX)
    }

    /// Of a file that says where packages come from, or with which credentials.
    pub(super) fn settings(&self, file: &Path) -> Result<(), StartError> {
        let file = Path::new("/").join(file);
        match self.writer(&file) {
            Some((server, folder)) => Err(StartError::Permanent(format!(
                "its package is not installed: {} says where it comes from, and the server {} may write {}, so that it \
                 could have been planted; put it where no server may write, or take the folder out of write under \
                 [servers.{server}.sandbox]",
                text::quote(&file.display().to_string(), 200),
                text::quote(server, 60),
                folder.display(),
            ))),
            None => Ok(()),
        }
    }

    /// Of all that `uv python find` may run to see what it is.
    pub(super) fn pythons(&self, wanted: Option<&str>, env: &[(String, String)]) -> Result<(), StartError> {
        let wanted = wanted.unwrap_or_default();
        if wanted.contains('/') {
            self.python(&Path::new("/").join(wanted))?;
        }
        let value = |name: &str| env.iter().rfind(|(other, _)| other == name).map(|(_, value)| value.as_str());
        let more = std::env::split_paths(value("UV_PYTHON_SEARCH_PATH").unwrap_or_default());
        for folder in self.path.iter().cloned().chain(more) {
            self.place(&folder)?;
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let is_tried = |name: &str| PYTHONS.iter().any(|python| name.starts_with(python)) || name == wanted;
            for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(is_tried)) {
                self.file(&entry.path(), CHAIN_MAX)?;
            }
        }
        // Where uv keeps its own.
        let share = || std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
        let share = || share().or_else(|| Some(std::env::home_dir()?.join(".local/share")));
        let own = value("UV_PYTHON_INSTALL_DIR").map(PathBuf::from).or_else(|| Some(share()?.join("uv/python")));
        let Some(own) = own.map(|own| Path::new("/").join(own)) else { return Ok(()) };
        self.whole(&own)?;
        let installed = std::fs::read_dir(&own).into_iter().flatten().flatten();
        installed.map(|entry| entry.path()).try_for_each(|entry| self.python(&entry))
    }

    /// Of a Python, or of a folder with one in its `bin`.
    pub(super) fn python(&self, path: &Path) -> Result<(), StartError> {
        if !path.is_dir() {
            return self.file(path, CHAIN_MAX);
        }
        ["python", "python3"].iter().try_for_each(|name| self.file(&path.join("bin").join(name), CHAIN_MAX))
    }

    /// What PATH makes of a name; a folder before it, too, in which it could be yet.
    fn named(&self, name: &str, left: usize) -> Result<(), StartError> {
        for file in self.path.iter().map(|folder| folder.join(name)) {
            self.file(&file, left)?;
            if file.is_file() {
                break;
            }
        }
        Ok(())
    }

    fn file(&self, file: &Path, left: usize) -> Result<(), StartError> {
        let Some(left) = left.checked_sub(1) else { return Ok(()) };
        self.place(file)?;
        self.loaded(file)?;
        let Ok(real) = file.canonicalize() else { return Ok(()) };
        self.loaded(&real)?;
        if let Some(home) = python_behind(file) {
            self.file(&home.join("python3"), left)?;
        }
        match first_line(&real, &|name| self.path.iter().map(|folder| folder.join(name)).find(|file| file.is_file())) {
            Some((found, true)) => match found.file_name().and_then(|name| name.to_str()) {
                Some(name) => self.named(name, left),
                None => self.file(&found, left),
            },
            Some((interpreter, false)) => self.file(&Path::new("/").join(interpreter), left),
            None => Ok(()),
        }
    }

    /// What a program loads without being told to: the `lib` beside its `bin`, the modules
    /// that it is one of.
    fn loaded(&self, file: &Path) -> Result<(), StartError> {
        if let Some(modules) = file.ancestors().filter(|path| path.ends_with("node_modules")).last() {
            self.whole(modules)?;
        }
        let prefix = file.parent().filter(|folder| folder.ends_with("bin")).and_then(Path::parent);
        let Some(prefix) = prefix.filter(|_| file.exists()) else { return Ok(()) };
        ["lib", "lib64", "pyvenv.cfg"].iter().try_for_each(|name| self.whole(&prefix.join(name)))
    }

    /// Neither on the way to it nor in it may anybody write.
    fn whole(&self, path: &Path) -> Result<(), StartError> {
        self.place(path)?;
        let Ok(real) = path.canonicalize() else { return Ok(()) };
        match self.writers.iter().find(|(_, folder)| folder.starts_with(&real)) {
            Some((server, folder)) => Err(refused(path, server, folder)),
            None => Ok(()),
        }
    }

    fn place(&self, path: &Path) -> Result<(), StartError> {
        match self.writer(path) {
            Some((server, folder)) => Err(refused(path, server, folder)),
            None => Ok(()),
        }
    }

    /// Who may write on the way to it.
    fn writer(&self, path: &Path) -> Option<(&str, &Path)> {
        let mut writers = self.writers.iter();
        let found = writers.find(|(_, folder)| on_the_way(path, std::slice::from_ref(folder)).is_some())?;
        Some((&found.0, &found.1))
    }
}

fn refused(path: &Path, server: &str, folder: &Path) -> StartError {
    StartError::Permanent(format!(
        "its package is not installed: {} would be run, or loaded, outside of any sandbox, and the server {} may write \
         {}, so that it could have been planted; name an npx, a uvx or a Python that no server may write (on PATH: \
         another folder before it), or take the folder out of write under [servers.{server}.sandbox]",
        text::quote(&path.display().to_string(), 200),
        text::quote(server, 60),
        folder.display(),
    ))
}

/// Of a virtual environment: the folder of the Python that it was made from.
fn python_behind(file: &Path) -> Option<PathBuf> {
    let settings = place::read(&file.parent()?.parent()?.join("pyvenv.cfg"), SETTINGS_MAX_BYTES)?;
    settings.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "home").then(|| Path::new("/").join(value.trim()))
    })
}
