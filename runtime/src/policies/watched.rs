//! A folder whose modules are activated as they appear: `<slot>.wasm`, with `<slot>.toml` for its settings and `<slot>.sig`
//! for its signature beside it. Whoever puts them there renames them into place, the module last: a file that is being
//! written may be read. Each content is tried once; its bytes are read once.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_core::digest::Sha256;
use tidegate_core::effect::Response;
use tidegate_core::input::{PolicyRequest, Request};
use tidegate_core::policy::{Binding, SettingValue, Slot};
use tidegate_core::row::{Key, Row};
use tidegate_core::time::Wall;
use tidegate_policies::json as words;

use super::Loader;
use crate::api::shapes::moment;
use crate::inbox::Inbox;
use crate::seam::{Blocking, Clock, Disk, DiskFile, Open, Seams};
use crate::store::View;

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Bytes of settings or of a signature.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// What was found in the folder; for the API. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Watched(Arc<Mutex<Option<Folder>>>);

#[derive(Debug)]
struct Folder {
    dir: PathBuf,
    /// Why it cannot be read, if it cannot.
    error: Option<String>,
    files: BTreeMap<Slot, WatchedFile>,
}

/// The module of a slot, as it was found last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedFile {
    /// Hash of its bytes, if they could be read.
    pub module: Option<Sha256>,
    /// When it was found.
    pub at: Wall,
    /// Why it was not activated, if it was not.
    pub error: Option<String>,
}

impl Watched {
    fn folder(&self) -> MutexGuard<'_, Option<Folder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found for a slot.
    #[must_use]
    pub fn file(&self, slot: Slot) -> Option<WatchedFile> {
        self.folder().as_ref()?.files.get(&slot).cloned()
    }

    /// As the API shows it; `None` if no folder is watched.
    pub(crate) fn json(&self) -> Option<Value> {
        let folder = self.folder();
        let folder = folder.as_ref()?;
        let file = |(slot, file): (&Slot, &WatchedFile)| {
            json!({
                "slot": slot.name(),
                "module": file.module.map(|module| module.to_string()),
                "at": moment(file.at),
                "error": file.error,
            })
        };
        let files: Vec<Value> = folder.files.iter().map(file).collect();
        Some(json!({ "dir": folder.dir.display().to_string(), "error": folder.error, "files": files }))
    }
}

/// By what a file that was replaced is known to be another: number, time of its last change, length; `None` is not there.
type Mark = Option<(Option<u64>, i64, u64)>;

/// The three files of a slot.
type Marks = [Mark; 3];

const ENDS: [&str; 3] = ["wasm", "toml", "sig"];

/// What lies in the folder for one slot.
struct Found {
    bytes: Vec<u8>,
    settings: Vec<(String, SettingValue)>,
    signature: Option<Vec<u8>>,
}

/// Watches one folder.
pub(crate) struct Watch<S: Seams> {
    pub(crate) seams: S,
    pub(crate) dir: PathBuf,
    /// Of a module.
    pub(crate) max_bytes: u64,
    pub(crate) loader: Loader,
    pub(crate) view: View,
    pub(crate) inbox: Inbox,
    pub(crate) watched: Watched,
}

impl<S: Seams> Watch<S> {
    /// Looks at the folder again and again.
    pub(crate) async fn keep_watching(self, closed: impl Future<Output = ()>) {
        *self.watched.folder() = Some(Folder { dir: self.dir.clone(), error: None, files: BTreeMap::new() });
        let look = async {
            let mut seen = BTreeMap::new();
            loop {
                self.look(&mut seen).await;
                self.seams.clock().sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            () = closed => {}
            () = look => {}
        }
    }

    /// Looks once. `seen` is what was there the last time.
    async fn look(&self, seen: &mut BTreeMap<Slot, Marks>) {
        let (disk, dir) = (self.seams.disk().clone(), self.dir.clone());
        let (error, now) = self
            .seams
            .blocking()
            .run(move || {
                let error = disk.list(&dir).err().map(|error| error.to_string());
                let marks: BTreeMap<Slot, Marks> =
                    Slot::ALL.map(|slot| (slot, marks(&disk, &dir, slot))).into();
                (error, marks)
            })
            .await;
        if let Some(folder) = &mut *self.watched.folder()
            && folder.error != error
        {
            if let Some(error) = &error {
                tracing::warn!(dir = %self.dir.display(), error, "the watched folder of policies cannot be read");
            }
            folder.error = error;
        }
        for (slot, marks) in now {
            let before = seen.insert(slot, marks);
            if marks[0].is_none() {
                // What sits in the slot stays there: taking a module out is said, not guessed.
                if let Some(folder) = &mut *self.watched.folder() {
                    folder.files.remove(&slot);
                }
                continue;
            }
            if before != Some(marks) {
                self.take(slot, before.is_none()).await;
            }
        }
    }

    /// Tries what lies there for a slot. `at_first` is the first look of this process: what was activated before, by
    /// whoever, is not activated again.
    async fn take(&self, slot: Slot, at_first: bool) {
        let (disk, dir, most) = (self.seams.disk().clone(), self.dir.clone(), self.max_bytes);
        let found = self.seams.blocking().run(move || read(&disk, &dir, slot, most)).await;
        let at = self.seams.clock().now().wall;
        let file = match found {
            Err(error) => WatchedFile { module: None, at, error: Some(error) },
            Ok(found) => {
                let module = Sha256::of(&found.bytes);
                let error = self.activate(slot, module, found, at_first).await.err();
                WatchedFile { module: Some(module), at, error }
            }
        };
        if let Some(error) = &file.error {
            let module = file.module.map(|module| module.to_string());
            tracing::warn!(
                slot = slot.name(),
                module,
                error,
                "a module of the watched folder was not activated; it is not tried again before its files change"
            );
        }
        if let Some(folder) = &mut *self.watched.folder() {
            folder.files.insert(slot, file);
        }
    }

    async fn activate(&self, slot: Slot, module: Sha256, found: Found, at_first: bool) -> Result<(), String> {
        let binding = Binding { module, settings: found.settings };
        let (view, wanted) = (self.view.clone(), binding.clone());
        let done = self.seams.blocking().run(move || was_activated(&view, slot, &wanted, at_first)).await?;
        if done {
            return Ok(());
        }
        let Some(blobs) = self.loader.blobs().cloned() else {
            return Err("this site runs no modules".to_owned());
        };
        let size = found.bytes.len() as u64;
        let stored = self.seams.blocking().run(move || {
            blobs.put(&found.bytes)?;
            found.signature.map_or(Ok(()), |signature| blobs.put_signature(module, Some(&signature)))
        });
        stored.await.map_err(|error| format!("it could not be stored: {error}"))?;
        self.ask(PolicyRequest::Admit { module, size }).await?;
        self.ask(PolicyRequest::Activate { slot, binding }).await?;
        tracing::info!(slot = slot.name(), module = %module, "a module of the watched folder was activated");
        Ok(())
    }

    async fn ask(&self, request: PolicyRequest) -> Result<(), String> {
        match self.inbox.request(Request::Policy(request), None).await {
            Ok(Ok(Response::Policy(_))) => Ok(()),
            Ok(Ok(_)) => Err("the answer is of another kind".to_owned()),
            Ok(Err(refusal)) => {
                let answer = crate::api::error::refused(&refusal);
                Err(answer.body().get("error").and_then(Value::as_str).unwrap_or("refused").to_owned())
            }
            Err(gone) => Err(gone.to_string()),
        }
    }
}

/// Whether a slot has this module with these settings; at the first look also whether it ever had: then somebody took it
/// out again, or another one came after it.
fn was_activated(view: &View, slot: Slot, wanted: &Binding, at_first: bool) -> Result<bool, String> {
    let row = view.get(&Key::Policy).map_err(|error| error.to_string())?;
    let Some(Row::Policy(row)) = row else { return Ok(false) };
    let has = |slots: &[(Slot, Binding)]| slots.iter().any(|(at, who)| *at == slot && who == wanted);
    Ok(has(&row.slots) || (at_first && row.history.iter().any(|turn| has(&turn.slots))))
}

fn path(dir: &Path, slot: Slot, end: &str) -> PathBuf {
    dir.join(format!("{}.{end}", slot.name()))
}

fn marks<D: Disk>(disk: &D, dir: &Path, slot: Slot) -> Marks {
    ENDS.map(|end| {
        let path = path(dir, slot, end);
        let meta = disk.meta(&path).ok().filter(|meta| !meta.is_dir)?;
        Some((disk.file_number(&path), meta.modified_ms, meta.len))
    })
}

fn read<D: Disk>(disk: &D, dir: &Path, slot: Slot, most: u64) -> Result<Found, String> {
    let [bytes, settings, signature] = ENDS.map(|end| {
        let path = path(dir, slot, end);
        let limit = if end == ENDS[0] { most } else { SMALL_BYTES_MAX };
        read_up_to(disk, &path, limit).map_err(|error| format!("{} cannot be read: {error}", path.display()))
    });
    let Some(bytes) = bytes? else { return Err("it is gone again".to_owned()) };
    let settings = match settings? {
        None => Vec::new(),
        Some(bytes) => {
            read_settings(&bytes).map_err(|why| format!("{}: {why}", path(dir, slot, ENDS[1]).display()))?
        }
    };
    Ok(Found { bytes, settings, signature: signature? })
}

fn read_settings(bytes: &[u8]) -> Result<Vec<(String, SettingValue)>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let said = serde_json::to_value(table).map_err(|error| error.to_string())?;
    words::read_settings(&said).map_err(|error| error.to_string())
}

/// The bytes of a file; `None` if there is none.
fn read_up_to<D: Disk>(disk: &D, path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len()?;
    if len > most {
        let text = format!("it has {len} bytes, at most {most} are taken (policies.max_bytes)");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests;
