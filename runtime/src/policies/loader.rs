//! Turns bytes into modules and modules into prepared sets, and performs the core's operations on policies. Blocks for
//! milliseconds: never called on the thread of decisions except before the first one. Decides nothing: whether a module
//! may sit anywhere is the core's to say.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_core::digest::Sha256;
use tidegate_core::effect::PolicyOp;
use tidegate_core::input::PolicyReply;
use tidegate_core::outcome::{Fault, Outcome};
use tidegate_core::policy::{Binding, PolicySet, Seat, Slot};
use tidegate_policies::sign::{self, PublicKey, Signature, TrustedKey};
use tidegate_policies::{Host, Manifest, Module, Rejection, SeatedSet, Sitting};
use tokio::sync::watch;

use crate::store::{Blobs, Unread};

/// Modules that are kept compiled; a site knows about as many, and one takes some hundred kilobytes.
const COMPILED_MAX: usize = 64;

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
    /// Whether anything was compiled: from then on the clock of the host must tick.
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
        Loader(Arc::new(Inner { host, blobs, signers, compiled: Mutex::default(), running }))
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
        SeatedSet::prepare(set, &|module| modules.get(&module).cloned())
            .map_err(|(slot, rejection)| (slot, rejection.into()))
    }

    /// A module in a slot with its settings. Blocks.
    ///
    /// # Errors
    /// Why it cannot sit there.
    pub fn seat(&self, slot: Slot, binding: &Binding) -> Result<Sitting, Unloaded> {
        Ok(self.module(binding.module)?.seat(slot, &binding.settings)?)
    }

    /// A module that was admitted before: compiled already, or from its bytes. Blocks.
    ///
    /// # Errors
    /// Why it is not to be had.
    pub fn module(&self, module: Sha256) -> Result<Module, Unloaded> {
        if let Some(compiled) = self.compiled().take(module) {
            return Ok(compiled);
        }
        self.load(module, false)
    }

    /// A module that nobody looked at yet: its signer's counter must not have gone further meanwhile.
    fn admitted(&self, module: Sha256) -> Result<Module, Unloaded> {
        self.load(module, true)
    }

    fn load(&self, module: Sha256, is_new: bool) -> Result<Module, Unloaded> {
        let (Some(host), Some(blobs)) = (&self.0.host, &self.0.blobs) else {
            return Err(rejected("native", "this site runs no modules: policies.native is set").into());
        };
        // It comes with the program: it is there whatever the disk says, and needs no signature.
        let loaded = if module == super::default_module() {
            host.admit(super::DEFAULT)?
        } else {
            let bytes = blobs.read(module).map_err(unread)?;
            let (manifest, counter) = self.vouched(blobs, module, &bytes, is_new)?;
            let loaded = host.admit_with(&bytes, &manifest)?;
            if let Some((key, counter)) = counter.filter(|_| is_new) {
                blobs.count(&key.to_hex(), counter)?;
            }
            loaded
        };
        self.0.running.send_if_modified(|running| !std::mem::replace(running, true));
        self.compiled().put(loaded.clone());
        Ok(loaded)
    }

    /// What a module is held to by whoever signed it, and the signer's counter if that matters.
    fn vouched(
        &self,
        blobs: &Blobs,
        module: Sha256,
        bytes: &[u8],
        is_new: bool,
    ) -> Result<(Manifest, Option<(PublicKey, u64)>), Unloaded> {
        let file = blobs.signature(module)?;
        let (Signers::Known(keys), Some(file)) = (&self.0.signers, &file) else {
            let trusted = match &self.0.signers {
                Signers::Known(keys) => trusted(keys, &BTreeMap::new()),
                Signers::Whoever => Vec::new(),
            };
            return Ok(match file {
                None => (sign::unsigned(&trusted)?, None),
                Some(file) => (of_whoever(bytes, &file)?, None),
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
