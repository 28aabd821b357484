//! What a recorded decision looks like: one line of JSON, for the table, for the export and for trying out policies. The
//! words of questions and verdicts are those of the contract.

use serde_json::{Map, Value};
use tidegate_core::policy::{Author, Decision, Question, Slot, Verdict};
use tidegate_core::time::Wall;
use tidegate_policies::json;

use crate::api::shapes::{moment, set_id};

/// Episodes or jobs that a recorded question may hold. A larger one is not recorded: it would cost the batch that it is
/// committed with more than the rest of it.
pub(crate) const ITEMS_MAX: usize = 512;
/// Bytes of a recorded decision. Labels have no bound of their own: with many of them one question would be a megabyte.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;

/// Whether a decision is recorded at all, as far as it can be told before its line is made. That one is shorter than
/// [`LINE_BYTES_MAX`] is seen when it is there.
pub(crate) fn is_recorded(decision: &Decision) -> bool {
    let texts = |device: &str, labels: &[(String, String)]| {
        device.len() + labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    };
    let (items, bytes) = match &decision.question {
        Question::AutoScan(_, batch) => {
            (batch.len(), batch.iter().map(|item| texts(&item.device, &item.labels)).sum())
        }
        Question::Order(_, batch) => {
            (batch.len(), batch.iter().map(|item| texts(&item.device, &item.labels)).sum())
        }
        Question::Retry(_) | Question::Concurrency(_) | Question::Bandwidth(_) => (0, 0),
    };
    items <= ITEMS_MAX && bytes <= LINE_BYTES_MAX
}

/// A decision as a line, without the end of the line.
pub(crate) fn line(at: Wall, decision: &Decision) -> Vec<u8> {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("at", moment(at).into());
    put("slot", decision.question.slot().name().into());
    put("set", set_id(decision.set).into());
    if let Some(module) = decision.module {
        put("module", module.to_string().into());
    }
    put("by", by(&decision.by).into());
    if let Author::Builtin { why, .. } = &decision.by {
        put("fault", why.code().into());
    }
    put("question", json::question(&decision.question));
    put("verdict", json::verdict(&decision.verdict));
    put("enacted", decision.enacted.as_str().into());
    put("reason", decision.reason.as_str().into());
    put("clamped", decision.clamped.into());
    Value::Object(fields).to_string().into_bytes()
}

/// Who answered: the set whose turn it was, or the built-in rules in its place.
pub(crate) fn by(author: &Author) -> &'static str {
    match author {
        Author::Set(_) => "set",
        Author::Builtin { .. } => "builtin",
    }
}

/// What can be asked again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recorded {
    /// When, as it was written.
    pub(crate) at: String,
    /// What was asked.
    pub(crate) question: Question,
    /// What was answered.
    pub(crate) verdict: Verdict,
    /// What the core made of it.
    pub(crate) enacted: String,
    /// Its author's word for why.
    pub(crate) reason: String,
}

/// Reads a line; `None` if a program of another version wrote it in words that this one does not know.
pub(crate) fn read(slot: Slot, line: &[u8]) -> Option<Recorded> {
    let line: Value = serde_json::from_slice(line).ok()?;
    let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(Recorded {
        at: text("at"),
        question: json::read_question(line.get("question")?)
            .ok()
            .filter(|question| question.slot() == slot)?,
        verdict: json::read_verdict(line.get("verdict")?).ok()?,
        enacted: text("enacted"),
        reason: text("reason"),
    })
}
