//! `tidegate policy sign` and `pin`: vouching for the bytes of a module. Owns key files; the signature itself is the
//! policies' own library.

use std::path::Path;

use tidegate_core::digest::Sha256;
use tidegate_policies::sign::SigningKey;
use tidegate_runtime::real::RealSeams;
use tidegate_runtime::seam::{Clock, Seams};

use super::args::{Pin, Sign};
use super::settings::nearest;
use super::{desk, local};
use crate::{Done, Failure, say};

pub(super) fn sign(args: &Sign) -> Done {
    let host = local::host()?;
    // What no site would take is not worth a signature; and the signer sees what it is.
    let admitted = local::admit(&host, &args.module)?;
    let (key, file) = match (&args.key, &args.new_key) {
        (Some(file), _) => (key_of(file)?, file),
        (None, Some(file)) => {
            let key = SigningKey::generate()
                .ok_or_else(|| Failure::failed("this machine gives no randomness for a key"))?;
            desk::write_secret(file, format!("{}\n", key.to_hex()).as_bytes())?;
            say(&format!("made the key {} (mode 0600): keep it to yourself", file.display()));
            (key, file)
        }
        (None, None) => {
            return Err(Failure::new(crate::Exit::Usage, "name a key: --key FILE or --new-key FILE"));
        }
    };
    let counter = args.counter.unwrap_or_else(seconds);
    let signature = key.sign(&admitted.bytes, None, None, counter);
    let place = admitted.file.with_extension("wasm.sig");
    desk::write(&place, signature.to_json().as_bytes())?;
    say(&format!("signed  {}  {}  counter {counter}", admitted.name(), admitted.hash()));
    say(&format!("wrote   {}", place.display()));
    say("");
    say("A site that is to take modules of this key alone has in its configuration:");
    say("");
    say("[policies.keys]");
    say(&format!("{} = \"{}\"", name_of(file), key.public().to_hex()));
    Ok(())
}

/// Seconds since 1970: a counter that grows without anybody keeping it.
fn seconds() -> u64 {
    let wall = RealSeams::new().clock().now().wall.0;
    u64::try_from(wall / 1_000).unwrap_or(0)
}

fn key_of(file: &Path) -> Result<SigningKey, Failure> {
    let text = desk::read_text(file)?;
    let key = SigningKey::from_hex(&text).ok_or_else(|| {
        Failure::failed(format!(
            "{} is no key: it must hold 64 hexadecimal digits, as `tidegate policy sign --new-key` writes them",
            file.display()
        ))
    })?;
    if desk::is_open_to_others(file) {
        say(&format!("warning: others may read {0}: chmod 600 {0}", file.display()));
    }
    Ok(key)
}

/// A name for a key in the configuration, of the name of its file.
fn name_of(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let legal = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let name: String = stem.chars().map(legal).take(64).collect();
    if name.is_empty() { "signer".to_owned() } else { name }
}

pub(super) fn pin(args: &Pin) -> Done {
    let (file, bytes) = local::module_bytes(&args.module)?;
    let hash = Sha256::of(&bytes).to_string();
    say(&format!("sha256 = \"{hash}\""));
    if !args.write {
        return Ok(());
    }
    let manifest = file.with_file_name("policy.toml");
    let text = desk::read_text(&manifest)?;
    let pinned =
        pinned(&text, &hash).map_err(|why| Failure::failed(format!("{}: {why}", manifest.display())))?;
    if pinned == text {
        say(&format!("{} has it already", manifest.display()));
        return Ok(());
    }
    desk::write(&manifest, pinned.as_bytes())?;
    say(&format!("wrote {}", manifest.display()));
    Ok(())
}

/// The manifest with this hash; everything else stays as it was written.
fn pinned(text: &str, hash: &str) -> Result<String, String> {
    let table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
    if table.get("sha256").is_none() {
        // Keys before the first section belong to the file itself.
        let near = nearest("sha256", table.keys().map(String::as_str));
        if let Some(near) = near {
            return Err(format!("there is no sha256; did you mean it by {near}?"));
        }
        return Ok(format!("sha256 = \"{hash}\"\n{text}"));
    }
    let mut section = false;
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        section |= trimmed.starts_with('[');
        let key = trimmed.split('=').next().unwrap_or("").trim();
        match !section && key == "sha256" {
            true => lines.push(format!("sha256 = \"{hash}\"")),
            false => lines.push(line.to_owned()),
        }
    }
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_after_its_file() {
        assert_eq!(name_of(Path::new("keys/Berlin 2.key")), "berlin-2");
        assert_eq!(name_of(Path::new("berlin")), "berlin");
        assert_eq!(name_of(Path::new("..")), "signer");
    }

    #[test]
    fn a_hash_is_written_into_a_manifest_and_nothing_else_changes() {
        let text = "# Mine.\nname = \"night\"\nsha256 = \"old\"   \n\n[source]\nsha256 = \"other\"\n";
        let new = pinned(text, "abc").expect("a manifest");
        assert_eq!(new, text.replace("sha256 = \"old\"   ", "sha256 = \"abc\""));
        assert_eq!(pinned(&new, "abc").expect("a manifest"), new);
        assert_eq!(pinned("name = \"x\"\n", "abc").expect("a manifest"), "sha256 = \"abc\"\nname = \"x\"\n");
        assert!(pinned("name =", "abc").is_err());
        assert!(pinned("sha265 = \"x\"", "abc").is_err_and(|why| why.contains("sha265")));
    }
}
