//! Turns bytes into modules and modules into prepared sets, and performs the core's operations on policies. Blocks for
//! milliseconds: never called on the thread of decisions except before the first one. Decides nothing: whether a module
//! may sit anywhere is the core's to say.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_core::digest::Sha256;
use tidegate_core::effect::PolicyOp;
use tidegate_core::input::PolicyReply;
use tidegate_core::outcome::{Fault, Outcome};
use tidegate_core::policy::{Binding, PolicySet, Seat, Slot};
use tidegate_core::row::{Key, ModuleState, Row};
use tidegate_policies::sign::{self, PublicKey, Signature, TrustedKey};
use tidegate_policies::{Host, Limits, Manifest, Module, Rejection, SeatedSet, Sitting};
use tokio::sync::watch;

use crate::crash;
use crate::store::{Blobs, Claim, StoreError, Unread, View};

/// Modules that are kept compiled; a site knows about as many, and one takes some hundred kilobytes.
const COMPILED_MAX: usize = 64;
/// How often the program may end while it looks at one module: once may be chance.
const TRIES_MAX: u32 = 2;

/// What an operation made ready for the shelf. It is there before the core hears of it.
#[derive(Debug)]
pub enum Ready {
    /// Nothing.
    Nothing,
    /// A set with everybody in their seats.
    Set(Box<SeatedSet>),
    /// Who decides beside the set; `None` is nobody.
    Shadow(Option<Box<Sitting>>),
}

/// Why a module is not there to be asked.
#[derive(Debug, thiserror::Error)]
pub enum Unloaded {
    /// The host does not take it, or its bytes are not what they must be.
    #[error("{0}")]
    Rejected(Rejection),
    /// The site's own disk failed; it may pass.
    #[error("the disk failed: {0}")]
    Disk(String),
    /// The machine had no time or no memory for it; that says nothing about the module, and may pass.
    #[error("the machine is too busy: {0}")]
    Late(String),
}

impl Unloaded {
    /// Whether the bytes of the module are not there, or not what they were.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, Unloaded::Rejected(rejection) if rejection.code == UNREADABLE)
    }
}

impl From<Rejection> for Unloaded {
    fn from(rejection: Rejection) -> Unloaded {
        match rejection.code {
            Rejection::TIMEOUT => Unloaded::Late(rejection.why),
            _ => Unloaded::Rejected(rejection),
        }
    }
}

impl From<std::io::Error> for Unloaded {
    fn from(error: std::io::Error) -> Unloaded {
        Unloaded::Disk(error.to_string())
    }
}

/// The modules of a site. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Loader(Arc<Inner>);

struct Inner {
    host: Option<Host>,
    blobs: Option<Blobs>,
    signers: Signers,
    compiled: Mutex<Compiled>,
    /// Admissions that an earlier start began and did not end, how often each.
    tries: Mutex<BTreeMap<Sha256, u32>>,
    /// Whether a module was looked at: from then on the clock of the host must tick.
    running: watch::Sender<bool>,
}

/// Whose signatures count.
enum Signers {
    /// These names and keys, the counters are on the disk. Without any a module needs no signature; one that it has all
    /// the same only holds it to its limits.
    Known(Vec<(String, PublicKey)>),
    /// Whoever signed: what was taken once is taken again, within the limits it had.
    Whoever,
}

#[derive(Default)]
struct Compiled {
    modules: BTreeMap<Sha256, (u64, Module)>,
    uses: u64,
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").field("native", &self.0.host.is_none()).finish_non_exhaustive()
    }
}

impl Loader {
    /// A loader for a site that runs no modules.
    #[must_use]
    pub fn native() -> Loader {
        Loader::made(None, None, Signers::Whoever)
    }

    /// A loader on this engine and these bytes. As soon as there is a key, modules that none of them signed are refused.
    #[must_use]
    pub fn new(host: Host, blobs: Blobs, keys: &BTreeMap<String, [u8; 32]>) -> Loader {
        let keys = keys.iter().map(|(name, key)| (name.clone(), PublicKey(*key))).collect();
        Loader::made(Some(host), Some(blobs), Signers::Known(keys))
    }

    /// A loader that repeats what a site did, whichever keys it knew.
    #[must_use]
    pub fn repeating(host: Host, blobs: Blobs) -> Loader {
        Loader::made(Some(host), Some(blobs), Signers::Whoever)
    }

    fn made(host: Option<Host>, blobs: Option<Blobs>, signers: Signers) -> Loader {
        let (running, _) = watch::channel(false);
        let (compiled, tries) = (Mutex::default(), Mutex::default());
        Loader(Arc::new(Inner { host, blobs, signers, compiled, tries, running }))
    }

    /// The engine, unless the site runs no modules.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        self.0.host.as_ref()
    }

    /// The bytes of modules, unless the site runs none.
    #[must_use]
    pub fn blobs(&self) -> Option<&Blobs> {
        self.0.blobs.as_ref()
    }

    /// Removes what no record is about from the folder of modules, and learns which admissions an earlier start did not
    /// end. Once, before anything is loaded. Blocks.
    ///
    /// # Errors
    /// Those of the disk and of the store.
    pub fn sweep(&self, rows: &View) -> Result<(), StoreError> {
        let Some(blobs) = &self.0.blobs else { return Ok(()) };
        let mut tries = self.tries();
        let gone = blobs.sweep(|module| {
            let claim = match rows.get(&Key::Module(module))? {
                Some(Row::Module(row)) if row.state == ModuleState::Staged => {
                    let before = blobs.tries(module)?;
                    tries.insert(module, before);
                    Claim::Admitting
                }
                Some(_) => Claim::Settled,
                None if module == super::default_module() => Claim::Settled,
                None => Claim::Nobody,
            };
            Ok::<_, StoreError>(claim)
        })?;
        if gone > 0 {
            tracing::info!(modules = gone, "modules that nobody knows were removed");
        }
        Ok(())
    }

    /// Turns true with the first module.
    #[must_use]
    pub fn running(&self) -> watch::Receiver<bool> {
        self.0.running.subscribe()
    }

    /// Performs an operation. Blocks.
    #[must_use]
    pub fn perform(&self, op: PolicyOp) -> (Outcome<PolicyReply>, Ready) {
        match op {
            PolicyOp::Admit { module } => match self.admitted(module) {
                Ok(module) => (Outcome::Done(PolicyReply::Admitted(module.facts().clone())), Ready::Nothing),
                Err(unloaded) => (outcome(None, unloaded), Ready::Nothing),
            },
            PolicyOp::Prepare { set } => match self.prepare(&set) {
                Ok(seated) => {
                    (Outcome::Done(PolicyReply::Prepared(seated.id())), Ready::Set(Box::new(seated)))
                }
                Err((slot, unloaded)) => (outcome(Some(slot), unloaded), Ready::Nothing),
            },
            PolicyOp::Retire { module } => (self.retire(module), Ready::Nothing),
            PolicyOp::Shadow(None) => (Outcome::Done(PolicyReply::Done), Ready::Shadow(None)),
            PolicyOp::Shadow(Some((slot, binding))) => match self.seat(slot, &binding) {
                Ok(sitting) => (Outcome::Done(PolicyReply::Done), Ready::Shadow(Some(Box::new(sitting)))),
                Err(unloaded) => (outcome(Some(slot), unloaded), Ready::Nothing),
            },
        }
    }

    /// Puts everybody of a set into their seats. Blocks.
    ///
    /// # Errors
    /// The first seat that stays empty, and why.
    pub fn prepare(&self, set: &PolicySet) -> Result<SeatedSet, (Slot, Unloaded)> {
        let mut modules = BTreeMap::new();
        for slot in Slot::ALL {
            if let Seat::Module(Binding { module, .. }) = set.seat(slot)
                && !modules.contains_key(module)
            {
                modules.insert(*module, self.module(*module).map_err(|why| (slot, why))?);
            }
        }
        // The slots are gone through in this order, and each module is taken just before it is seated.
        let slots = Slot::ALL.into_iter().filter(|slot| matches!(set.seat(*slot), Seat::Module(_)));
        let (slots, now) = (RefCell::new(slots), Cell::new(Slot::AutoScan));
        let take = |module| {
            now.set(slots.borrow_mut().next().unwrap_or(now.get()));
            modules.get(&module).cloned()
        };
        match guarded(|| SeatedSet::prepare(set, &take)) {
            Ok(seated) => seated.map_err(|(slot, rejection)| (slot, rejection.into())),
            Err(failed) => Err((now.get(), failed.into())),
        }
    }

    /// A module in a slot with its settings. Blocks.
    ///
    /// # Errors
    /// Why it cannot sit there.
    pub fn seat(&self, slot: Slot, binding: &Binding) -> Result<Sitting, Unloaded> {
        let module = self.module(binding.module)?;
        Ok(guarded(|| module.seat(slot, &binding.settings))??)
    }

    /// A module that was admitted before: compiled already, or from its bytes. Blocks.
    ///
    /// # Errors
    /// Why it is not to be had.
    pub fn module(&self, module: Sha256) -> Result<Module, Unloaded> {
        if let Some(compiled) = self.compiled().take(module) {
            return Ok(compiled);
        }
        guarded(|| self.load(module, false))?
    }

    /// A module that nobody looked at yet: its signer's counter must not have gone further meanwhile.
    fn admitted(&self, module: Sha256) -> Result<Module, Unloaded> {
        guarded(|| self.load(module, true))?
    }

    fn load(&self, module: Sha256, is_new: bool) -> Result<Module, Unloaded> {
        let (Some(host), Some(blobs)) = (&self.0.host, &self.0.blobs) else {
            return Err(rejected("native", "this site runs no modules: policies.native is set").into());
        };
        // It comes with the program: it is there whatever the disk says, and needs no signature.
        let loaded = if module == super::default_module() {
            self.start_clock();
            host.admit(super::DEFAULT)?
        } else {
            let bytes = blobs.read(module).map_err(unread)?;
            let file = blobs.signature(module)?;
            let (manifest, counter) = self.vouched(blobs, &bytes, file.as_deref(), is_new)?;
            self.start_clock();
            if !is_new {
                host.admit_with(&bytes, &manifest)?
            } else {
                let loaded = self.tried(blobs, module, || host.admit_with(&bytes, &manifest))?;
                if blobs.signature(module)? != file {
                    return Err(Unloaded::Disk("its signature was replaced meanwhile".to_owned()));
                }
                if let Some((key, counter)) = counter {
                    blobs.count(&key.to_hex(), counter)?;
                }
                loaded
            }
        };
        self.compiled().put(loaded.clone());
        Ok(loaded)
    }

    /// From here on code of modules runs, and only a clock that ticks ends what fuel does not.
    fn start_clock(&self) {
        self.0.running.send_if_modified(|running| !std::mem::replace(running, true));
    }

    /// Looks at a module under a mark on the disk, so that one that ends the program is not looked at in every start.
    fn tried(
        &self,
        blobs: &Blobs,
        module: Sha256,
        look: impl FnOnce() -> Result<Module, Rejection>,
    ) -> Result<Module, Unloaded> {
        // Marks count that were there when the program started: later ones are its own.
        let before = self.tries().get(&module).copied().unwrap_or(0);
        let ended = || {
            self.tries().remove(&module);
            // A mark that stays is removed at the next start, unless the module is to be looked at again.
            if let Err(error) = blobs.end_try(module) {
                tracing::warn!(module = %module, %error, "the mark of a module's admission stays");
            }
        };
        if before >= TRIES_MAX {
            ended();
            let why = format!(
                "the program ended {before} times while this module was looked at; load it again to have it tried anew"
            );
            return Err(rejected("compile", why).into());
        }
        blobs.begin_try(module, before + 1)?;
        let looked = guarded(look);
        ended();
        Ok(looked??)
    }

    fn tries(&self) -> MutexGuard<'_, BTreeMap<Sha256, u32>> {
        self.0.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a signature may take the place of the one that a module was admitted with: it must count, and hold the
    /// module to what it was held to. Its counter is remembered.
    pub(super) fn renew(
        &self,
        module: Sha256,
        bytes: &[u8],
        serves: &[Slot],
        new: &[u8],
    ) -> Result<(), Unloaded> {
        let Some(blobs) = &self.0.blobs else { return Ok(()) };
        let (manifest, counter) = self.vouched(blobs, bytes, Some(new), true)?;
        let absent = |hooks: &Vec<Slot>| serves.iter().find(|slot| !hooks.contains(slot)).copied();
        if let Some(slot) = manifest.hooks.as_ref().and_then(absent) {
            let why =
                format!("it does not allow the hook {}, which the module was admitted for", slot.name());
            return Err(rejected(SIGNATURE, why).into());
        }
        // A hook that it does not have would keep it out at the next start.
        let other = |hooks: &Vec<Slot>| hooks.iter().find(|slot| !serves.contains(slot)).copied();
        if let Some(slot) = manifest.hooks.as_ref().and_then(other) {
            let why = format!("it names the hook {}, which the module was not admitted for", slot.name());
            return Err(rejected(SIGNATURE, why).into());
        }
        // One that does not count any more held it to nothing.
        let held = match blobs.signature(module)? {
            Some(old) => of_whoever(bytes, &old).map(|manifest| manifest.limits).unwrap_or_default(),
            None => Limits::default(),
        };
        if manifest.limits != held {
            let why = "its limits are not those that the module was admitted with";
            return Err(rejected(SIGNATURE, why).into());
        }
        if let Some((key, counter)) = counter {
            blobs.count(&key.to_hex(), counter)?;
        }
        Ok(())
    }

    /// What a module is held to by whoever signed it, and the signer's counter if that matters.
    fn vouched(
        &self,
        blobs: &Blobs,
        bytes: &[u8],
        file: Option<&[u8]>,
        is_new: bool,
    ) -> Result<(Manifest, Option<(PublicKey, u64)>), Unloaded> {
        let (Signers::Known(keys), Some(file)) = (&self.0.signers, file) else {
            let trusted = match &self.0.signers {
                Signers::Known(keys) => trusted(keys, &BTreeMap::new()),
                Signers::Whoever => Vec::new(),
            };
            return Ok(match file {
                None => (sign::unsigned(&trusted)?, None),
                Some(file) => (of_whoever(bytes, file)?, None),
            });
        };
        if keys.is_empty() {
            return Ok((of_whoever(bytes, file)?, None));
        }
        let counters = if is_new { blobs.counters()? } else { BTreeMap::new() };
        let signed = sign::verify(bytes, file, &trusted(keys, &counters))?;
        Ok((signed.manifest, Some((signed.key, signed.counter))))
    }

    fn retire(&self, module: Sha256) -> Outcome<PolicyReply> {
        self.compiled().modules.remove(&module);
        match self.0.blobs.as_ref().map(|blobs| blobs.remove(module)) {
            None | Some(Ok(())) => Outcome::Done(PolicyReply::Done),
            Some(Err(error)) => Outcome::Failed(Fault::Local(error.to_string())),
        }
    }

    fn compiled(&self) -> MutexGuard<'_, Compiled> {
        self.0.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Compiled {
    fn take(&mut self, module: Sha256) -> Option<Module> {
        self.uses += 1;
        let (used, compiled) = self.modules.get_mut(&module)?;
        *used = self.uses;
        Some(compiled.clone())
    }

    fn put(&mut self, module: Module) {
        self.uses += 1;
        self.modules.insert(module.hash(), (self.uses, module));
        if self.modules.len() > COMPILED_MAX {
            let oldest = self.modules.iter().min_by_key(|(_, (used, _))| *used).map(|(hash, _)| *hash);
            if let Some(oldest) = oldest {
                self.modules.remove(&oldest);
            }
        }
    }
}

/// The keys, with the highest counters seen of them.
fn trusted(keys: &[(String, PublicKey)], counters: &BTreeMap<String, u64>) -> Vec<TrustedKey> {
    let trusted = |(name, key): &(String, PublicKey)| TrustedKey {
        name: name.clone(),
        key: *key,
        counter: counters.get(&key.to_hex()).copied().unwrap_or(0),
    };
    keys.iter().map(trusted).collect()
}

/// What a signature holds its module to, whoever made it: it must fit the module, and vouches for nothing.
fn of_whoever(bytes: &[u8], file: &[u8]) -> Result<Manifest, Rejection> {
    let signature: Option<Signature> = serde_json::from_slice(file).ok();
    let key = signature.and_then(|signature| PublicKey::from_hex(&signature.key));
    let trusted: Vec<TrustedKey> =
        key.map(|key| TrustedKey { name: String::new(), key, counter: 0 }).into_iter().collect();
    let signed = sign::verify(bytes, file, &trusted)?;
    Ok(Manifest { signed_by: None, ..signed.manifest })
}

/// The code of a module whose bytes are not to be had, as the core knows it.
const UNREADABLE: &str = "unreadable";
/// The code of a module that nobody who counts vouches for.
const SIGNATURE: &str = "signature";

/// Calls into the host. It is a large program that is given a stranger's bytes: should it panic, that is the module's
/// rejection and not the end of the site.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Rejection> {
    crash::guarded(work).map_err(|panicked| {
        let (message, location) = (panicked.message, panicked.location);
        tracing::error!(panic = message, location, "the host panicked; its module is rejected");
        rejected("compile", format!("the host failed on it: {message}"))
    })
}

fn rejected(code: &'static str, why: impl Into<String>) -> Rejection {
    Rejection { code, why: why.into() }
}

fn unread(why: Unread) -> Unloaded {
    match why {
        Unread::Missing | Unread::Damaged => {
            Unloaded::Rejected(rejected(UNREADABLE, format!("{why}: load them again")))
        }
        Unread::Disk(error) => error.into(),
    }
}

fn outcome(slot: Option<Slot>, unloaded: Unloaded) -> Outcome<PolicyReply> {
    match unloaded {
        Unloaded::Rejected(Rejection { code, why }) => {
            Outcome::Done(PolicyReply::Rejected { slot, code: code.to_owned(), why })
        }
        // The core asks again.
        Unloaded::Disk(error) => Outcome::Failed(Fault::Local(error)),
        Unloaded::Late(why) => Outcome::Failed(Fault::Local(format!("{}: {why}", Rejection::TIMEOUT))),
    }
}

#[cfg(test)]
mod tests;
