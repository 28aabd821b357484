//! Which inputs made the core panic, how often, and which of them are not stepped any more. Owns the records of it and
//! the catching of a panic; must not decide what happens in the place of such an input: the core does.
//!
//! ```text
//! panic ─► the record of this input and place counts one more, durably ─► the site ends, and is started again
//! at the third ─► the input is quarantined: a start leaves it out, and the core decides in its place
//! ```
//!
//! Records are of one version of the program: another one gets another try.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use minicbor::{Decode, Encode};
use tidegate_core::digest::Sha256;
use tidegate_core::time::Wall;

use crate::boot::panic_text;
use crate::seam::Disk;
use crate::store::{JOURNAL_LIMIT, OpenError, Store, StoreError};

/// Identical crashes after which an input is quarantined. One may be chance, two a coincidence with something that was
/// going on; and each costs a restart, which devices notice.
pub const LIMIT: u32 = 3;
/// How long a record counts. An input that comes once a month hurts nobody, and what it says may be true no more.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Records that are kept; the oldest go first. Each has cost a crash.
const RECORDS_MAX: usize = 256;
/// Bytes of a panic's words that are kept: it may print a record.
const MESSAGE_MAX: usize = 300;
/// Version of a record's bytes.
const RECORD_VERSION: u8 = 1;
/// The version whose crashes count.
pub(crate) const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// An input that made the core panic at one place. Says nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Crash {
    /// What the input shares with those that are the same in other boots.
    #[n(0)]
    pub likeness: Sha256,
    /// Name of the input.
    #[n(1)]
    pub input: String,
    /// Whom it is about; empty if nobody.
    #[n(2)]
    pub about: String,
    /// What the panic said, shortened.
    #[n(3)]
    pub message: String,
    /// Where: `file:line`.
    #[n(4)]
    pub location: String,
    /// How often.
    #[n(5)]
    pub count: u32,
    /// When first.
    #[n(6)]
    pub first: Wall,
    /// When last.
    #[n(7)]
    pub last: Wall,
    /// The program's version.
    #[n(8)]
    pub program: String,
    /// Whether it can be left out; a boot cannot.
    #[n(9)]
    pub avoidable: bool,
}

impl Crash {
    /// What makes two crashes identical: the input and the place.
    #[must_use]
    pub fn signature(&self) -> Sha256 {
        let mut bytes = self.likeness.0.to_vec();
        bytes.extend_from_slice(self.location.as_bytes());
        Sha256::of(&bytes)
    }

    /// Whether this was once too often.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.count >= LIMIT
    }

    /// Why it is quarantined, in words for people.
    #[must_use]
    pub fn reason(&self) -> String {
        format!("made the core panic {} times, at {}: {}", self.count, self.location, self.message)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![RECORD_VERSION];
        minicbor::encode(self, &mut bytes).expect("writing to a vector cannot fail");
        bytes
    }

    /// `None` if it is not in a form that this program knows.
    fn from_bytes(bytes: &[u8]) -> Option<Crash> {
        let (version, body) = bytes.split_first()?;
        if *version == RECORD_VERSION { minicbor::decode(body).ok() } else { None }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.about.is_empty() { "" } else { ": " };
        write!(f, "{}{what}{} {}", self.input, self.about, self.reason())
    }
}

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked {
    /// What it said.
    pub message: String,
    /// Where: `file:line`.
    pub location: String,
}

/// The records of one site, and what they leave out.
#[derive(Debug, Default)]
pub struct Crashes {
    by_signature: BTreeMap<Sha256, Crash>,
}

impl Crashes {
    /// Reads the records that count: those of this program, and not too old. The others are removed.
    ///
    /// # Errors
    /// Those of the database.
    pub fn load(store: &Store, now: Wall) -> Result<Crashes, StoreError> {
        let mut crashes = Crashes::default();
        let mut gone = Vec::new();
        for (signature, bytes) in store.crashes()? {
            match Crash::from_bytes(&bytes) {
                Some(crash) if crash.program == PROGRAM && crash.last.until(now) < KEPT => {
                    crashes.by_signature.insert(crash.signature(), crash);
                }
                Some(_) | None => gone.push((signature, None)),
            }
        }
        if !gone.is_empty() {
            tracing::info!(
                records = gone.len(),
                "inputs that made another version of the core panic, or did so long ago, get another try"
            );
            store.write_crashes(&gone)?;
        }
        for crash in crashes.quarantined() {
            tracing::warn!(
                input = crash.input,
                about = crash.about,
                panic = crash.message,
                location = crash.location,
                crashes = crash.count,
                "an input is quarantined; `tidegate quarantine clear` gives it another try, and so does another version"
            );
        }
        Ok(crashes)
    }

    /// Whether anything is quarantined.
    #[must_use]
    pub fn any(&self) -> bool {
        self.quarantined().next().is_some()
    }

    /// What is quarantined.
    pub fn quarantined(&self) -> impl Iterator<Item = &Crash> {
        self.by_signature.values().filter(|crash| crash.is_quarantined())
    }

    /// The record that keeps such an input from being stepped; the place of the panic is not known in advance.
    #[must_use]
    pub fn keeps_out(&self, likeness: Sha256) -> Option<&Crash> {
        self.quarantined().find(|crash| crash.likeness == likeness)
    }

    /// The record that keeps the site from starting: an input without which there is no site.
    #[must_use]
    pub fn hopeless(&self, boot: Sha256) -> Option<&Crash> {
        self.quarantined().find(|crash| !crash.avoidable && (crash.input != "boot" || crash.likeness == boot))
    }

    /// Counts a crash, durably. Returns its record.
    ///
    /// # Errors
    /// Those of the database; then it does not count.
    pub fn count(&mut self, store: &Store, crash: Crash) -> Result<&Crash, StoreError> {
        let signature = crash.signature();
        let known = self.by_signature.get(&signature);
        let crash = match known {
            // It was to be left out and was not: then nothing is known that would keep it from coming again.
            Some(known) => Crash {
                count: known.count.saturating_add(1),
                first: known.first,
                avoidable: crash.avoidable && !known.is_quarantined(),
                ..crash
            },
            None => crash,
        };
        let mut changes = vec![(signature.0.to_vec(), Some(crash.to_bytes()))];
        if known.is_none() && self.by_signature.len() >= RECORDS_MAX {
            let oldest = self.by_signature.iter().min_by_key(|(_, crash)| crash.last);
            if let Some(oldest) = oldest.map(|(signature, _)| *signature) {
                self.by_signature.remove(&oldest);
                changes.push((oldest.0.to_vec(), None));
            }
        }
        store.write_crashes(&changes)?;
        Ok(self.by_signature.entry(signature).insert_entry(crash).into_mut())
    }
}

/// The records of a data directory whose site does not run, also those that do not count. Takes its lock for as long.
///
/// # Errors
/// The directory cannot be opened or read.
pub fn list_dir<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Crash>, OpenError> {
    let store = Store::open_existing(disk, dir)?;
    let records = store.crashes().map_err(|error| OpenError::Store { dir: dir.to_owned(), error })?;
    Ok(records.iter().filter_map(|(_, bytes)| Crash::from_bytes(bytes)).collect())
}

/// Removes the records of a data directory whose site does not run: everything gets another try. Returns how many
/// there were.
///
/// # Errors
/// The directory cannot be opened, read or written.
pub fn clear_dir<D: Disk>(disk: &D, dir: &Path) -> Result<usize, OpenError> {
    let broken = |error| OpenError::Store { dir: dir.to_owned(), error };
    // Read first: a directory with nothing to remove is not written to, and not migrated either.
    let records = Store::open_existing(disk, dir)?.crashes().map_err(broken)?;
    let gone: Vec<_> = records.into_iter().map(|(signature, _)| (signature, None)).collect();
    if !gone.is_empty() {
        Store::open(disk, dir, JOURNAL_LIMIT)?.write_crashes(&gone).map_err(broken)?;
    }
    Ok(gone.len())
}

thread_local! {
    /// Where the last panic on this thread was.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls into the core, and catches its panic. Nothing that `work` changed may be believed after one.
///
/// # Errors
/// The panic.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    watch_panics();
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Panicked {
        message: shortened(&panic_text(&*panic)),
        // A hook that was set after ours, and does not call it, leaves us without the place.
        location: PLACE.with_borrow_mut(Option::take).unwrap_or_else(|| "an unknown place".to_owned()),
    })
}

/// A panic says where it was to the hook alone. Ours only takes a note; whatever was there before still prints it.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(|at| format!("{}:{}", at.file(), at.line()));
            PLACE.with_borrow_mut(|last| *last = place);
            before(panic);
        }));
    });
}

fn shortened(text: &str) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > MESSAGE_MAX {
        line.truncate(line.floor_char_boundary(MESSAGE_MAX));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests;
