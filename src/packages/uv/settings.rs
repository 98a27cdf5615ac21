//! What uv is configured to: asked of the user's own uv, with the user's own files and
//! variables, before anything of a package is there.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_util::task::TaskTracker;

use super::{
    super::{Outside, Said, request::Request, run},
    files::Files,
    shown,
};
use crate::{
    link::StartError,
    process::Command,
    sandbox::{Destination, Policy, Profile},
    text,
};

const ASK_TIMEOUT: Duration = Duration::from_secs(60);
/// Who says whose certificates are good.
const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
/// Where uv looks for its files and its interpreters.
const WHERE: [&str; 4] = ["XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME", "XDG_DATA_DIRS"];
/// Variables of uv's that say from where packages come, and which; the names and passwords of
/// an index (`UV_INDEX_NAME_PASSWORD`) are among them.
const KEPT: [&str; 14] = [
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
    "UV_INSECURE_HOST",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_HTTP_TIMEOUT",
    "UV_EXCLUDE_NEWER",
    "UV_PRERELEASE",
    "UV_RESOLUTION",
    "UV_FORK_STRATEGY",
    "UV_NO_CONFIG",
    "UV_OFFLINE",
];

#[derive(Default)]
pub(in crate::packages) struct Settings {
    pub(super) uv: String,
    /// The interpreter, without links.
    pub(super) python: PathBuf,
    /// URLs and folders of its indexes, in its order.
    indexes: Vec<shown::Index>,
    pub(super) hosts: Vec<Destination>,
    /// None of these is the default one, and it has one that it comes with.
    pub(super) has_built_in: bool,
    pub(super) read: Vec<PathBuf>,
    pub(super) env: Vec<(String, String)>,
    /// Names of variables that say where certificates are.
    pub(super) certificates: Vec<String>,
    pub(super) files: Files,
}

pub(in crate::packages) async fn settings(
    request: &Request,
    server: &Command,
    outside: &Outside,
    tasks: &TaskTracker,
) -> Result<Settings, StartError> {
    let uv = uv_beside(&server.program);
    let env = of_uv(server);
    let ask = |args: Vec<OsString>| asking(server, &uv, args);
    let mut find = ["python", "find", "--system"].map(OsString::from).to_vec();
    let wanted = request.python.clone().or_else(|| value(&env, "UV_PYTHON"));
    find.extend(wanted.clone().map(OsString::from));
    outside.program(&uv)?;
    Files::places(&env).iter().try_for_each(|(_, file)| outside.settings(file))?;
    outside.pythons(wanted.as_deref(), &env)?;
    let found = run::run(&ask(find), None, ASK_TIMEOUT, tasks).await?;
    let python = interpreter(&found, wanted.as_deref())?;
    outside.python(&python)?;
    let mut show = ["tool", "install", "--show-settings"].map(OsString::from).to_vec();
    show.extend(request.options.iter().chain(&request.packages[..1]).map(OsString::from));
    let said = run::run(&ask(show), None, ASK_TIMEOUT, tasks).await?;
    let shown = said.succeeded.then(|| shown::read(&said.output)).flatten().ok_or_else(|| {
        let why = text::quote(&said.last_words, 200);
        StartError::Permanent(format!("uv does not say how it is configured ({why}); a newer one may"))
    })?;
    let certificates = CERTIFICATES.into_iter().filter(|name| std::env::var_os(name).is_some());
    let certificates: Vec<String> = certificates.map(str::to_owned).collect();
    let named = certificates.iter().filter_map(|name| std::env::var_os(name).map(PathBuf::from));
    let mut read: Vec<PathBuf> = named.chain([prefix(&python)]).chain(shown.folders().map(Path::to_owned)).collect();
    read.retain(|path| path.exists());
    let files = Files::of(&env);
    let has_built_in = !shown.has_default && !shown.has_no_index;
    let hosts = shown.hosts();
    let env = env.into_iter().filter(|(name, _)| is_kept(name)).collect();
    let indexes = shown.indexes;
    Ok(Settings { uv, python, indexes, hosts, has_built_in, read, env, certificates, files })
}

impl Settings {
    pub(in crate::packages) fn interpreter(&self) -> &Path {
        &self.python
    }

    /// What makes another installation.
    pub(in crate::packages) fn made_of(&self) -> String {
        format!("{:?}", (&self.python, &self.indexes, self.has_built_in))
    }
}

/// The user's own program reads the user's own files.
fn asking(server: &Command, uv: &str, args: Vec<OsString>) -> Command {
    let names = WHERE.iter().chain(&CERTIFICATES).map(|name| (*name).to_owned());
    let mut env = of_uv(server);
    env.extend([("UV_PYTHON_DOWNLOADS", "never"), ("NO_COLOR", "1")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    Command {
        program: uv.to_owned(),
        args,
        env,
        // What lies in a project has no say in which tool is run, as with uvx itself.
        cwd: PathBuf::from("/"),
        sandbox: Policy { profile: Profile::Off, env: names.collect(), ..Policy::default() },
        ..server.clone()
    }
}

/// The variables of uv's: seawall's own, and those that the server is given, which are for
/// uv by their name.
fn of_uv(server: &Command) -> Vec<(String, String)> {
    let own =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    own.chain(server.env.iter().cloned()).filter(|(name, _)| name.starts_with("UV_")).collect()
}

pub(super) fn value(env: &[(String, String)], name: &str) -> Option<String> {
    env.iter().rfind(|(other, value)| other == name && !value.is_empty()).map(|(_, value)| value.clone())
}

/// `UV_INDEX`, `UV_INDEX_URL`, `UV_INDEX_STRATEGY`, `UV_INDEX_NAME_USERNAME`, …
fn is_kept(name: &str) -> bool {
    KEPT.contains(&name) || name == "UV_INDEX" || name.starts_with("UV_INDEX_")
}

/// The uv of the same installation.
fn uv_beside(program: &str) -> String {
    match Path::new(program).parent() {
        Some(folder) if program.contains('/') => folder.join("uv").display().to_string(),
        _ => "uv".to_owned(),
    }
}

fn interpreter(found: &Said, wanted: Option<&str>) -> Result<PathBuf, StartError> {
    let path = Path::new(found.output.trim());
    match path.canonicalize() {
        Ok(python) if found.succeeded && path.is_absolute() => Ok(python),
        _ => {
            let (which, how) = match wanted.map(|wanted| text::quote(wanted, 40)) {
                Some(wanted) => (format!(" {wanted}"), format!("uv python install {wanted}")),
                None => (String::new(), "uv python install".to_owned()),
            };
            let why = text::quote(&found.last_words, 200);
            Err(StartError::Permanent(format!(
                "uv finds no Python{which} here ({why}), and an installation fetches none: run {how}"
            )))
        }
    }
}

/// `X` of `X/bin/python`.
fn prefix(python: &Path) -> PathBuf {
    let folder = python.parent().unwrap_or(python);
    match folder.parent() {
        Some(prefix) if folder.ends_with("bin") && prefix.components().count() > 2 => prefix.to_owned(),
        _ => folder.to_owned(),
    }
}
