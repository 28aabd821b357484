//! A folder whose modules are activated as they appear: `<slot>.wasm`, with `<slot>.toml` for its settings and `<slot>.sig`
//! for its signature beside it. Whoever puts them there renames them into place, the module last. A module is tried when two
//! looks in a row found the same files, and never one that was seen to be written where it lies. What was refused for good
//! is not tried again; what was refused for the moment is.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_core::digest::Sha256;
use tidegate_core::effect::Response;
use tidegate_core::input::{PolicyRequest, Request};
use tidegate_core::policy::{Binding, SettingValue, Slot};
use tidegate_core::refusal::{PolicyRefusal, Refusal};
use tidegate_core::row::{Key, Row};
use tidegate_core::time::Wall;
use tidegate_policies::json as words;

use super::Loader;
use super::intake::{self, Unstored};
use crate::api::shapes::moment;
use crate::inbox::Inbox;
use crate::seam::{Blocking, Clock, Disk, DiskFile, Open, Seams};
use crate::store::{StoreError, View};

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

/// What is remembered of a slot between two looks.
#[derive(Clone, Debug)]
struct Sight {
    /// What lay there at the last look.
    last: Marks,
    /// What lay there when this process began to look, as long as that lies there still.
    first: Option<Marks>,
    /// What was tried last, and is not tried again.
    taken: Option<Marks>,
    /// The number of a module's file that was seen to be written where it lies.
    in_place: Option<u64>,
}

/// What a look makes of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing lies there.
    Nothing,
    /// It was tried already, or may still be written.
    Wait,
    /// It is written where it lies, so nobody can tell when it is whole.
    Refuse,
    /// It is to be tried. `at_first`: it lay there when this process began to look.
    Try {
        /// What was activated before, by whoever, is not activated again.
        at_first: bool,
    },
}

impl Sight {
    fn new(now: Marks) -> Sight {
        Sight { last: now, first: Some(now), taken: None, in_place: None }
    }

    /// Takes in what lies there now. It is whole if it is what lay there before.
    fn look(&mut self, now: Marks) -> Next {
        let before = std::mem::replace(&mut self.last, now);
        if self.first != Some(now) {
            self.first = None;
        }
        let Some((number, time, len)) = now[0] else {
            (self.taken, self.in_place) = (None, None);
            return Next::Nothing;
        };
        if let (Some(number), Some((Some(same), was_time, was_len))) = (number, before[0])
            && number == same
            && (time, len) != (was_time, was_len)
        {
            self.in_place = Some(number);
        }
        if self.in_place.is_some() && self.in_place == number {
            return if self.taken == Some(now) { Next::Wait } else { Next::Refuse };
        }
        self.in_place = None;
        if before != now || self.taken == Some(now) {
            return Next::Wait;
        }
        Next::Try { at_first: self.first.is_some() }
    }
}

/// Why a module was not activated.
struct Failed {
    why: String,
    /// Whether it may be otherwise in a moment.
    may_pass: bool,
}

impl Failed {
    fn for_good(why: impl Into<String>) -> Failed {
        Failed { why: why.into(), may_pass: false }
    }

    fn for_now(why: impl Into<String>) -> Failed {
        Failed { why: why.into(), may_pass: true }
    }

    fn of_disk(what: &str, error: &io::Error) -> Failed {
        Failed { why: format!("{what}: {error}"), may_pass: error.kind() != io::ErrorKind::InvalidData }
    }
}

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

    /// Looks once. `seen` is what was there the last time; nothing before the folder could be read for the first time.
    async fn look(&self, seen: &mut BTreeMap<Slot, Sight>) {
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
        let is_unreadable = error.is_some();
        if let Some(folder) = &mut *self.watched.folder()
            && folder.error != error
        {
            if let Some(error) = &error {
                tracing::warn!(dir = %self.dir.display(), error, "the watched folder of policies cannot be read");
            }
            folder.error = error;
        }
        if is_unreadable && seen.is_empty() {
            // What lies there when it can be read lay there at the first look.
            return;
        }
        for (slot, marks) in now {
            let next = match seen.entry(slot) {
                Entry::Occupied(mut sight) => sight.get_mut().look(marks),
                Entry::Vacant(none) => {
                    none.insert(Sight::new(marks));
                    Next::Wait
                }
            };
            let is_over = match next {
                Next::Wait => false,
                Next::Nothing => {
                    // What sits in the slot stays there: taking a module out is said, not guessed.
                    if let Some(folder) = &mut *self.watched.folder() {
                        folder.files.remove(&slot);
                    }
                    false
                }
                Next::Refuse => {
                    let path = path(&self.dir, slot, ENDS[0]);
                    let why = format!(
                        "{} was changed in place: write it elsewhere on the same file system and rename it here",
                        path.display()
                    );
                    self.tell(slot, None, Err(Failed::for_good(why)))
                }
                Next::Try { at_first } => self.take(slot, marks, at_first).await,
            };
            if is_over && let Some(sight) = seen.get_mut(&slot) {
                sight.taken = Some(marks);
            }
        }
    }

    /// Tries what lies there for a slot. `at_first`: it lay there when this process began to look; what was activated
    /// before, by whoever, is not activated again then. Returns whether it need not be tried again.
    async fn take(&self, slot: Slot, seen: Marks, at_first: bool) -> bool {
        let (disk, dir, most) = (self.seams.disk().clone(), self.dir.clone(), self.max_bytes);
        let read = move || {
            let found = read(&disk, &dir, slot, most)?;
            // Nobody wrote while it was read, or it is looked at again.
            let is_whole = marks(&disk, &dir, slot) == seen;
            Ok(is_whole.then_some(found))
        };
        match self.seams.blocking().run(read).await {
            Err(failed) => self.tell(slot, None, Err(failed)),
            Ok(None) => false,
            Ok(Some(found)) => {
                let module = Sha256::of(&found.bytes);
                let activated = self.activate(slot, module, found, at_first).await;
                self.tell(slot, Some(module), activated)
            }
        }
    }

    /// Shows what came of a file. Returns whether it need not be tried again.
    fn tell(&self, slot: Slot, module: Option<Sha256>, came: Result<(), Failed>) -> bool {
        let may_pass = came.as_ref().is_err_and(|failed| failed.may_pass);
        let error = came.err().map(|failed| failed.why);
        let at = self.seams.clock().now().wall;
        let mut folder = self.watched.folder();
        let Some(folder) = &mut *folder else { return !may_pass };
        let before = folder.files.get(&slot);
        // What is tried again every few seconds is told of once.
        let is_news = before.is_none_or(|before| before.error != error || before.module != module);
        if let Some(error) = error.as_ref().filter(|_| is_news) {
            let module = module.map(|module| module.to_string());
            let then = if may_pass {
                "it is tried again in a moment"
            } else {
                "it is not tried again before its files change"
            };
            tracing::warn!(
                slot = slot.name(),
                module,
                error,
                then,
                "a module of the watched folder was not activated"
            );
        }
        if is_news || error.is_none() {
            folder.files.insert(slot, WatchedFile { module, at, error });
        }
        !may_pass
    }

    async fn activate(&self, slot: Slot, module: Sha256, found: Found, at_first: bool) -> Result<(), Failed> {
        let binding = Binding { module, settings: found.settings };
        let (view, wanted) = (self.view.clone(), binding.clone());
        let known = move || {
            let row = match view.get(&Key::Module(module))? {
                Some(Row::Module(row)) => Some(row),
                _ => None,
            };
            Ok::<_, StoreError>((was_activated(&view, slot, &wanted, at_first)?, row))
        };
        let known = self.seams.blocking().run(known).await;
        let (is_done, row) = known.map_err(|error| Failed::for_now(error.to_string()))?;
        if is_done {
            return Ok(());
        }
        let loader = self.loader.clone();
        let size = found.bytes.len() as u64;
        let stored = self
            .seams
            .blocking()
            .run(move || intake::store(&loader, row.as_deref(), &found.bytes, found.signature.as_deref()));
        stored.await.map_err(|why| match &why {
            Unstored::Native | Unstored::Signature(_) => Failed::for_good(why.to_string()),
            Unstored::Busy => Failed::for_now(why.to_string()),
            Unstored::Disk(error) => Failed::of_disk("it could not be stored", error),
        })?;
        self.ask(PolicyRequest::Admit { module, size }).await?;
        self.ask(PolicyRequest::Activate { slot, binding }).await?;
        tracing::info!(slot = slot.name(), module = %module, "a module of the watched folder was activated");
        Ok(())
    }

    async fn ask(&self, request: PolicyRequest) -> Result<(), Failed> {
        match self.inbox.request(Request::Policy(request), None).await {
            Ok(Ok(Response::Policy(_))) => Ok(()),
            Ok(Ok(_)) => Err(Failed::for_good("the answer is of another kind")),
            Ok(Err(refusal)) => {
                let answer = crate::api::error::refused(&refusal);
                let body = answer.body();
                let why = body.get("error").and_then(Value::as_str).unwrap_or("refused");
                let may_pass = matches!(
                    &refusal,
                    Refusal::Stopping
                        | Refusal::Policy(
                            PolicyRefusal::Busy | PolicyRefusal::Overtaken | PolicyRefusal::Unanswered(_)
                        )
                );
                Err(Failed { why: why.to_owned(), may_pass })
            }
            Err(gone) => Err(Failed::for_now(gone.to_string())),
        }
    }
}

/// Whether a slot has this module with these settings; at the first look also whether it ever had: then somebody took it
/// out again, or another one came after it.
fn was_activated(view: &View, slot: Slot, wanted: &Binding, at_first: bool) -> Result<bool, StoreError> {
    let Some(Row::Policy(row)) = view.get(&Key::Policy)? else { return Ok(false) };
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

fn read<D: Disk>(disk: &D, dir: &Path, slot: Slot, most: u64) -> Result<Found, Failed> {
    let [bytes, settings, signature] = ENDS.map(|end| {
        let path = path(dir, slot, end);
        let limit = if end == ENDS[0] { most } else { SMALL_BYTES_MAX };
        let unread = |error| Failed::of_disk(&format!("{} cannot be read", path.display()), &error);
        read_up_to(disk, &path, limit).map_err(unread)
    });
    let Some(bytes) = bytes? else { return Err(Failed::for_now("it is gone again")) };
    let settings = match settings? {
        None => Vec::new(),
        Some(bytes) => {
            let path = path(dir, slot, ENDS[1]);
            read_settings(&bytes).map_err(|why| Failed::for_good(format!("{}: {why}", path.display())))?
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
