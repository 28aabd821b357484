//! Modules on the desk of their author: reads them, admits them as a site does, seats them with settings. Asks no site.

use std::path::{Path, PathBuf};

use tidegate_core::digest::Sha256;
use tidegate_core::policy::{SettingValue, Slot};
use tidegate_policies::{Ceilings, Host, Module, Sitting, TICK};

use super::desk;
use super::settings::{Given, fitted};
use crate::Failure;

/// What a build writes into a project, and what is taken of a directory that is named in its place.
pub(crate) const MODULE_FILE: &str = "policy.wasm";

/// The file of a module and its bytes. A directory stands for the module in it.
pub(crate) fn module_bytes(path: &Path) -> Result<(PathBuf, Vec<u8>), Failure> {
    let built = path.join(MODULE_FILE);
    let file = if desk::is_file(&built) { built } else { path.to_path_buf() };
    if path.is_dir() && file == path {
        return Err(Failure::failed(format!(
            "there is no {MODULE_FILE} in {}: make it with `tidegate policy build {0}`",
            path.display()
        )));
    }
    let bytes = desk::read(&file)?;
    Ok((file, bytes))
}

/// A host with a site's ceilings, and the clock that interrupts what runs for too long.
pub(crate) fn host() -> Result<Host, Failure> {
    let host = Host::new(Ceilings::default()).map_err(|error| Failure::failed(error.to_string()))?;
    let ticking = host.clone();
    // Ends with the command.
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TICK).await;
            ticking.tick();
        }
    });
    Ok(host)
}

/// A module that this host admitted, and where it came from.
pub(crate) struct Admitted {
    pub(crate) file: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) module: Module,
}

/// Reads a module and admits it.
pub(crate) fn admit(host: &Host, path: &Path) -> Result<Admitted, Failure> {
    let (file, bytes) = module_bytes(path)?;
    let module = host.admit(&bytes).map_err(|rejection| {
        Failure::failed(format!("{} is not admitted: {rejection}{}", file.display(), hint(&bytes)))
    })?;
    Ok(Admitted { file, bytes, module })
}

/// What a file that is no component may be instead.
fn hint(bytes: &[u8]) -> &'static str {
    if bytes.trim_ascii_start().starts_with(b"(") {
        "\nIt is WebAssembly as text; a site takes the binary form."
    } else {
        ""
    }
}

impl Admitted {
    /// The settings as the module takes them.
    pub(crate) fn settings(&self, given: &[Given]) -> Result<Vec<(String, SettingValue)>, Failure> {
        let documented: Vec<(String, SettingValue)> =
            self.module.about().settings.iter().map(|doc| (doc.key.clone(), doc.default.clone())).collect();
        fitted(given, &documented).map_err(|why| Failure::failed(format!("{}: {why}", self.name())))
    }

    /// The module in a slot; the questions of admission are asked with these settings again.
    pub(crate) fn seat(&self, slot: Slot, given: &[Given]) -> Result<Sitting, Failure> {
        let settings = self.settings(given)?;
        self.module.seat(slot, &settings).map_err(|rejection| {
            let with = if given.is_empty() { "" } else { " with these settings" };
            Failure::failed(format!("{} is refused{with}: {rejection}", self.file.display()))
        })
    }

    /// Hash of its bytes in hexadecimal digits.
    pub(crate) fn hash(&self) -> String {
        hex(&self.module.hash())
    }

    /// Name and version.
    pub(crate) fn name(&self) -> String {
        let facts = self.module.facts();
        format!("{} {}", facts.name, facts.version)
    }
}

/// A hash in hexadecimal digits.
pub(crate) fn hex(hash: &Sha256) -> String {
    hash.to_string()
}
