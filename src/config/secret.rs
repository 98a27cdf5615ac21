//! Text that must not show up in a log, a row or a complaint.

use std::fmt;

/// A token, a header's value, a variable of a server's environment: `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whether a key that we do not know sounds as if its value were one: a misspelt
/// `token` must not put the token into a log.
pub(super) fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["tok", "secret", "pass", "key", "auth", "cred", "cookie", "header", "env", "webhook"]
        .iter()
        .any(|word| key.contains(word))
}
