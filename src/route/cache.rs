//! Each server's last catalog on disk, so that a restart lists tools at once.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::{call::ServerName, upstream::Offer};

#[derive(Clone, Debug)]
pub struct OfferCache {
    /// `None` keeps nothing.
    folder: Option<PathBuf>,
}

impl OfferCache {
    pub fn in_folder(folder: &Path) -> Self {
        OfferCache { folder: Some(folder.to_owned()) }
    }

    pub fn none() -> Self {
        OfferCache { folder: None }
    }

    /// What `server` offered when it was last seen. `fingerprint` is of its entry in
    /// servers.toml: another command is another server.
    pub fn load(&self, server: &ServerName, fingerprint: &str) -> Option<Offer> {
        let text = std::fs::read(self.file(server)?).ok()?;
        let stored: Stored = serde_json::from_slice(&text).ok()?;
        (stored.fingerprint == fingerprint).then_some(stored.offer)
    }

    /// Blocks on the disk. A failure costs the next start its head start, no more.
    pub fn save(&self, server: &ServerName, fingerprint: &str, offer: &Offer) {
        let Some(file) = self.file(server) else { return };
        let stored = serde_json::to_vec(&Stored { fingerprint: fingerprint.to_owned(), offer: offer.clone() });
        let written = stored.map_err(std::io::Error::from).and_then(|json| replace(&file, &json));
        if let Err(error) = written {
            tracing::debug!(%server, "its catalog was not kept in {}: {error}", file.display());
        }
    }

    fn file(&self, server: &ServerName) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{server}.json")))
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    fingerprint: String,
    offer: Offer,
}

/// Whole or not at all, whoever reads meanwhile.
fn replace(file: &Path, content: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let draft = file.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::File::create(&draft).and_then(|mut draft| draft.write_all(content))?;
    std::fs::rename(&draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Payload;

    #[test]
    fn an_offer_comes_back_as_it_was_unless_its_entry_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = OfferCache::in_folder(&folder.path().join("not/yet"));
        let offer = Offer {
            hello: Payload::literal(r#"{"x":1e400}"#),
            tools: vec![Payload::literal(r#"{"name": "a" , "n":12345678901234567890123}"#)],
            prompts: vec![],
            resources: vec![],
            templates: vec![],
        };
        let server = ServerName::from("files");
        cache.save(&server, "v1", &offer);
        assert_eq!(cache.load(&server, "v1"), Some(offer));
        assert_eq!(cache.load(&server, "v2"), None);
        assert_eq!(OfferCache::none().load(&server, "v1"), None);
    }
}
