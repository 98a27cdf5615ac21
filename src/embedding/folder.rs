//! The folder of a model: whether there is one, in words for whoever has to get it.

use std::path::Path;

/// What must be there; pooling and truncation have defaults.
pub const FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// Why no model can be loaded from `folder`, and what to do: a sentence.
pub fn missing(folder: &Path) -> Option<String> {
    let shown = folder.display();
    if !folder.is_dir() {
        return Some(format!("there is no model at {shown}; {}", how_to_get_one(folder)));
    }
    let missing: Vec<&str> = FILES.into_iter().filter(|name| !folder.join(name).is_file()).collect();
    match missing[..] {
        [] => None,
        _ => Some(format!("the model at {shown} lacks {}; {}", missing.join(", "), how_to_get_one(folder))),
    }
}

fn how_to_get_one(folder: &Path) -> String {
    format!(
        "get one with `hf download sentence-transformers/all-MiniLM-L6-v2 --local-dir {}`, \
         or write another sentence-transformers folder as model under options in servers.toml",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_is_missing_and_how_to_get_it() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("m");
        let none = missing(&folder).expect("nothing is there");
        assert!(none.contains("there is no model at") && none.contains("hf download"), "{none}");
        std::fs::create_dir(&folder).expect("made");
        std::fs::write(folder.join("config.json"), "{}").expect("written");
        let some = missing(&folder).expect("two are missing");
        assert!(some.contains("lacks tokenizer.json, model.safetensors;"), "{some}");
        for name in FILES {
            std::fs::write(folder.join(name), "").expect("written");
        }
        assert_eq!(missing(&folder), None);
    }
}
