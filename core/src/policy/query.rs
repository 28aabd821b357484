//! Hooks, authors and records of decisions.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::PolicySetId;
use crate::policy::question::{
    Bandwidth, Candidate, Chosen, Ordering, RetryQuery, RetryVerdict, Situation, UploadLimits, Waiting,
};

/// A hook that a policy may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Slot {
    /// [`crate::policy::Policies::select`]
    #[n(0)]
    AutoScan,
    /// [`crate::policy::Policies::retry`]
    #[n(1)]
    Retry,
    /// [`crate::policy::Policies::limits`]
    #[n(2)]
    Concurrency,
    /// [`crate::policy::Policies::budget`]
    #[n(3)]
    Bandwidth,
    /// [`crate::policy::Policies::score`]
    #[n(4)]
    Order,
}

impl Slot {
    /// Every hook.
    pub const ALL: [Slot; 5] = [Slot::AutoScan, Slot::Retry, Slot::Concurrency, Slot::Bandwidth, Slot::Order];

    /// Reads [`Slot::name`].
    #[must_use]
    pub fn of(name: &str) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| slot.name() == name)
    }

    /// The word in configuration, API and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Slot::AutoScan => "auto-scan",
            Slot::Retry => "retry",
            Slot::Concurrency => "concurrency",
            Slot::Bandwidth => "bandwidth",
            Slot::Order => "order",
        }
    }
}

/// A verdict and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling<T> {
    /// The verdict, not yet clamped.
    pub verdict: T,
    /// Who gave it.
    pub by: Author,
    /// The author's words for reasons: reason n is the n-th, 0 is unspecified.
    pub words: Arc<[String]>,
}

/// A verdict made safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clamped<V> {
    /// What to obey.
    pub verdict: V,
    /// A short text of it for people.
    pub text: String,
    /// The reason of the raw verdict.
    pub reason: u16,
    /// Whether it is another than the raw one.
    pub clamped: bool,
}

impl<T> Ruling<T> {
    /// The word of a reason.
    #[must_use]
    pub fn word(&self, reason: u16) -> &str {
        match usize::from(reason).checked_sub(1) {
            None => UNSPECIFIED,
            Some(n) => self.words.get(n).map_or(UNKNOWN, String::as_str),
        }
    }
}

/// The word of reason 0.
pub const UNSPECIFIED: &str = "unspecified";
/// The word of a reason that its author has no word for: no policy comes this far with one.
pub const UNKNOWN: &str = "unknown";

/// Who gave a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Author {
    /// The active set.
    #[n(0)]
    Set(#[n(0)] PolicySetId),
    /// The built-in reference, because the active set could not.
    #[n(1)]
    Builtin {
        /// The set that should have answered.
        #[n(0)]
        instead_of: PolicySetId,
        /// What went wrong.
        #[n(1)]
        why: PolicyFault,
    },
}

impl Author {
    /// The set whose turn it was.
    #[must_use]
    pub fn set(&self) -> PolicySetId {
        match self {
            Author::Set(set) => *set,
            Author::Builtin { instead_of, .. } => *instead_of,
        }
    }
}

/// What went wrong inside a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PolicyFault {
    /// It trapped.
    #[n(0)]
    Trap,
    /// It ran out of its budget of instructions or memory.
    #[n(1)]
    Exhausted,
    /// Its answer has the wrong shape.
    #[n(2)]
    Shape,
    /// The set is not loaded.
    #[n(3)]
    Missing,
    /// It took too long by the clock: the backstop when fuel is not what ended it. Not repeatable.
    #[n(4)]
    Timeout,
    /// It let nothing begin for longer than it may, though nothing else stood in the way.
    #[n(5)]
    Stalled,
}

impl PolicyFault {
    /// A short stable word for metrics, logs and the API.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            PolicyFault::Trap => "trap",
            PolicyFault::Exhausted => "exhausted",
            PolicyFault::Shape => "shape",
            PolicyFault::Missing => "missing",
            PolicyFault::Timeout => "timeout",
            PolicyFault::Stalled => "stalled",
        }
    }
}

/// One verdict as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ruled {
    /// The question.
    #[n(0)]
    pub slot: Slot,
    /// Who answered.
    #[n(1)]
    pub by: Author,
    /// The verdict after clamping, as a short text for people.
    #[n(2)]
    pub verdict: String,
    /// The author's word for why.
    #[n(3)]
    pub reason: Option<String>,
    /// Whether clamping changed the verdict.
    #[n(4)]
    pub clamped: Option<bool>,
}

/// A question with everything in it that its answer may depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// [`crate::policy::Policies::select`]
    AutoScan(Situation, Vec<Candidate>),
    /// [`crate::policy::Policies::retry`]
    Retry(RetryQuery),
    /// [`crate::policy::Policies::limits`]
    Concurrency(Situation),
    /// [`crate::policy::Policies::budget`]
    Bandwidth(Situation),
    /// [`crate::policy::Policies::score`]
    Order(Situation, Vec<Waiting>),
}

impl Question {
    /// Its hook.
    #[must_use]
    pub fn slot(&self) -> Slot {
        match self {
            Question::AutoScan(..) => Slot::AutoScan,
            Question::Retry(_) => Slot::Retry,
            Question::Concurrency(_) => Slot::Concurrency,
            Question::Bandwidth(_) => Slot::Bandwidth,
            Question::Order(..) => Slot::Order,
        }
    }
}

/// An answer, not clamped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To [`Question::AutoScan`].
    AutoScan(Vec<Chosen>),
    /// To [`Question::Retry`].
    Retry(RetryVerdict),
    /// To [`Question::Concurrency`].
    Concurrency(UploadLimits),
    /// To [`Question::Bandwidth`].
    Bandwidth(Bandwidth),
    /// To [`Question::Order`].
    Order(Ordering),
}

/// One decision, whole: what was asked, what was answered, by whom, and what the core made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The set whose turn it was.
    pub set: PolicySetId,
    /// Who answered.
    pub by: Author,
    /// The module that sits in the slot, if it is one.
    pub module: Option<Sha256>,
    /// What was asked.
    pub question: Question,
    /// What was answered, not clamped.
    pub verdict: Verdict,
    /// What the core made of it, as a short text for people.
    pub enacted: String,
    /// The author's word for why; of a list, the most frequent.
    pub reason: String,
    /// Whether clamping changed the verdict.
    pub clamped: bool,
}

impl From<Vec<Chosen>> for Verdict {
    fn from(verdict: Vec<Chosen>) -> Verdict {
        Verdict::AutoScan(verdict)
    }
}

impl From<RetryVerdict> for Verdict {
    fn from(verdict: RetryVerdict) -> Verdict {
        Verdict::Retry(verdict)
    }
}

impl From<UploadLimits> for Verdict {
    fn from(verdict: UploadLimits) -> Verdict {
        Verdict::Concurrency(verdict)
    }
}

impl From<Bandwidth> for Verdict {
    fn from(verdict: Bandwidth) -> Verdict {
        Verdict::Bandwidth(verdict)
    }
}

impl From<Ordering> for Verdict {
    fn from(verdict: Ordering) -> Verdict {
        Verdict::Order(verdict)
    }
}
