//! The modules of this folder: where they lie, what their policy.toml says, and what their sources hash to. Builds and
//! judges nothing.

use std::fs;
use std::path::{Path, PathBuf};

use tidegate_core::digest::Sha256;

/// How to make a module agree with its sources again.
pub const REBUILD: &str = "cargo run -p tidegate-policies --example rebuild -- --write";

/// Every module that is committed, by its folder in policies/.
pub const ALL: [&str; 6] = [
    "default",
    "examples/night-window",
    "examples/deadline-first",
    "examples/yield-to-recording",
    "examples/retry-by-class",
    "examples/retry-by-class-c",
];

/// A committed module.
#[derive(Clone, Debug)]
pub struct Guest {
    pub place: &'static str,
    pub folder: PathBuf,
    pub in_c: bool,
}

/// What policy.toml says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    pub name: String,
    pub hooks: Vec<String>,
    /// Hash of policy.wasm.
    pub sha256: String,
    /// Hash of what it is built from.
    pub sources: String,
    /// The compiler that built it, by its own name.
    pub compiler: String,
}

pub fn policies() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

impl Guest {
    pub fn of(place: &'static str) -> Guest {
        let folder = policies().join(place);
        let in_c = !folder.join("Cargo.toml").is_file();
        Guest { place, folder, in_c }
    }

    pub fn all() -> Vec<Guest> {
        ALL.into_iter().map(Guest::of).collect()
    }

    pub fn wasm(&self) -> Vec<u8> {
        let path = self.folder.join("policy.wasm");
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn card(&self) -> Result<Card, String> {
        let path = self.folder.join("policy.toml");
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let table: toml::Table = text.parse().map_err(|e| format!("{}: {e}", path.display()))?;
        let word = |key: &str| {
            let missing = || format!("{} has no text `{key}`", path.display());
            table.get(key).and_then(|value| value.as_str()).map(str::to_owned).ok_or_else(missing)
        };
        let hooks = table.get("hooks").and_then(|hooks| hooks.as_array()).cloned().unwrap_or_default();
        Ok(Card {
            name: word("name")?,
            hooks: hooks.iter().filter_map(|hook| hook.as_str().map(str::to_owned)).collect(),
            sha256: word("sha256")?,
            sources: word("sources")?,
            compiler: word("compiler")?,
        })
    }

    /// What the module is built from: its own files and the contract. The SDK is among its own files, as in a new
    /// project: a link, because cargo's hashes of what lies outside of a project depend on where the project lies.
    pub fn sources(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        walk(&self.folder, &mut files);
        files.retain(|file| {
            let own = file.strip_prefix(&self.folder).unwrap_or(file);
            let top = own.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
            !matches!(
                top.as_deref(),
                Some("policy.toml" | "policy.wasm" | "vectors" | "target" | "README.md")
            )
        });
        files.push(policies().join("wit/policy.wit"));
        if self.place == "default" {
            // The site's own rules, which this module includes.
            let core = policies().parent().expect("policies/ lies in the root").join("core/src/policy");
            files.extend([core.join("builtin.rs"), core.join("question.rs")]);
        }
        files.sort();
        files
    }

    /// One hash over names, lengths and bytes of all of them.
    pub fn sources_hash(&self) -> String {
        let root = policies().parent().expect("policies/ lies in the root").to_path_buf();
        let mut whole = Vec::new();
        for file in self.sources() {
            let bytes = fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let name = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().replace('\\', "/");
            whole.extend_from_slice(name.as_bytes());
            whole.push(0);
            whole.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            whole.extend_from_slice(&bytes);
        }
        hash(&whole)
    }
}

pub fn hash(bytes: &[u8]) -> String {
    Sha256::of(bytes).0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every file below a folder.
pub fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for path in entries.map(|entry| entry.expect("an entry of a folder").path()) {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                walk(&path, files);
            }
        } else {
            files.push(path);
        }
    }
}
