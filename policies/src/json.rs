//! Questions, verdicts and settings as JSON, with the names of the contract: fields in snake_case, cases as they stand in
//! the WIT. Read strictly, with the place of an error; fields that are not given are neutral. Decides nothing.

mod read;
mod words;

use serde_json::{Map, Value, json};
use tidegate_core::policy::{
    Bandwidth, Candidate, Chosen, GiveUp, Ordering, Question, RetryAction, RetryQuery, RetryVerdict,
    SettingValue, Situation, Slot, UploadLimits, Verdict, Waiting,
};

pub use read::JsonError;
use read::{Field, Fields, expected};
use words::word;

/// A question: `slot`, and the arguments of its function (`now`, `batch`, `attempt`).
#[must_use]
pub fn question(question: &Question) -> Value {
    let slot = question.slot().name();
    match question {
        Question::AutoScan(now, batch) => {
            let batch: Vec<_> = batch.iter().map(candidate).collect();
            json!({ "slot": slot, "now": situation(now), "batch": batch })
        }
        Question::Retry(query) => json!({ "slot": slot, "attempt": attempt(query) }),
        Question::Concurrency(now) | Question::Bandwidth(now) => {
            json!({ "slot": slot, "now": situation(now) })
        }
        Question::Order(now, batch) => {
            let batch: Vec<_> = batch.iter().map(waiting).collect();
            json!({ "slot": slot, "now": situation(now), "batch": batch })
        }
    }
}

/// Reads what [`question`] writes.
pub fn read_question(value: &Value) -> Result<Question, JsonError> {
    let mut fields = Fields::of("", value)?;
    let question = match fields.required("slot")? {
        Slot::AutoScan => Question::AutoScan(fields.or_default("now")?, fields.or("batch", Vec::new())?),
        Slot::Retry => Question::Retry(fields.required("attempt")?),
        Slot::Concurrency => Question::Concurrency(fields.or_default("now")?),
        Slot::Bandwidth => Question::Bandwidth(fields.or_default("now")?),
        Slot::Order => Question::Order(fields.or_default("now")?, fields.or("batch", Vec::new())?),
    };
    fields.done()?;
    Ok(question)
}

/// A verdict: `slot`, and the fields of its record. Reasons are numbers; their words are the module's.
#[must_use]
pub fn verdict(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::AutoScan(choices) => {
            let choices: Vec<_> = choices
                .iter()
                .map(|chosen| json!({ "action": word(chosen.choice), "reason": chosen.reason }))
                .collect();
            json!({ "slot": Slot::AutoScan.name(), "choices": choices })
        }
        Verdict::Retry(RetryVerdict { action, memo, reason }) => {
            let action = match action {
                RetryAction::After { delay_ms } => json!({ "after": delay_ms }),
                RetryAction::Park => json!("park"),
                RetryAction::GiveUp(why) => json!({ "give-up": word(*why) }),
            };
            json!({ "slot": Slot::Retry.name(), "action": action, "memo": memo, "reason": reason })
        }
        Verdict::Concurrency(UploadLimits { uploads, recheck_ms, memo, reason }) => json!({
            "slot": Slot::Concurrency.name(),
            "uploads": uploads,
            "recheck": recheck_ms,
            "memo": memo,
            "reason": reason,
        }),
        Verdict::Bandwidth(Bandwidth { bytes_per_second, recheck_ms, memo, reason }) => json!({
            "slot": Slot::Bandwidth.name(),
            "bytes_per_second": bytes_per_second,
            "recheck": recheck_ms,
            "memo": memo,
            "reason": reason,
        }),
        Verdict::Order(Ordering { scores, reason }) => {
            json!({ "slot": Slot::Order.name(), "scores": scores, "reason": reason })
        }
    }
}

/// Reads what [`verdict`] writes.
pub fn read_verdict(value: &Value) -> Result<Verdict, JsonError> {
    let mut fields = Fields::of("", value)?;
    let verdict = match fields.required("slot")? {
        Slot::AutoScan => Verdict::AutoScan(fields.required("choices")?),
        Slot::Retry => Verdict::Retry(RetryVerdict {
            action: fields.required("action")?,
            memo: fields.or("memo", 0)?,
            reason: fields.or("reason", 0)?,
        }),
        Slot::Concurrency => Verdict::Concurrency(UploadLimits {
            uploads: fields.required("uploads")?,
            recheck_ms: fields.or("recheck", 0)?,
            memo: fields.or("memo", 0)?,
            reason: fields.or("reason", 0)?,
        }),
        Slot::Bandwidth => Verdict::Bandwidth(Bandwidth {
            bytes_per_second: fields.or("bytes_per_second", None)?,
            recheck_ms: fields.or("recheck", 0)?,
            memo: fields.or("memo", 0)?,
            reason: fields.or("reason", 0)?,
        }),
        Slot::Order => {
            Verdict::Order(Ordering { scores: fields.required("scores")?, reason: fields.or("reason", 0)? })
        }
    };
    fields.done()?;
    Ok(verdict)
}

/// Settings: an object of flags, whole numbers and texts.
#[must_use]
pub fn settings(settings: &[(String, SettingValue)]) -> Value {
    Value::Object(settings.iter().map(|(key, value)| (key.clone(), setting(value))).collect())
}

/// One value of a setting.
#[must_use]
pub fn setting(value: &SettingValue) -> Value {
    match value {
        SettingValue::Flag(flag) => json!(flag),
        SettingValue::Int(int) => json!(int),
        SettingValue::Text(text) => json!(text),
    }
}

/// Reads what [`settings`] writes, sorted by key as a binding wants them.
pub fn read_settings(value: &Value) -> Result<Vec<(String, SettingValue)>, JsonError> {
    let Value::Object(map) = value else { return Err(expected("settings", "an object", value)) };
    let mut settings = Vec::new();
    for (key, value) in map {
        settings.push((key.clone(), SettingValue::read(key, value)?));
    }
    settings.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(settings)
}

fn situation(now: &Situation) -> Value {
    json!({
        "link": word(now.link),
        "metered": word(now.metered),
        "power": word(now.power),
        "minute_of_week": now.minute_of_week,
        "due": now.due,
        "waiting": now.waiting,
        "uploading": now.uploading,
        "parked": now.parked,
        "recording": now.recording,
        "streak": now.streak,
        "goodput": now.goodput,
        "disk_free": now.disk_free,
        "memo": now.memo,
        "seed": now.seed,
    })
}

impl Field for Situation {
    fn read(path: &str, value: &Value) -> Result<Situation, JsonError> {
        let mut fields = Fields::of(path, value)?;
        let neutral = Situation::default();
        let now = Situation {
            link: fields.or("link", neutral.link)?,
            metered: fields.or("metered", neutral.metered)?,
            power: fields.or("power", neutral.power)?,
            minute_of_week: fields.or("minute_of_week", neutral.minute_of_week)?,
            due: fields.or("due", neutral.due)?,
            waiting: fields.or("waiting", neutral.waiting)?,
            uploading: fields.or("uploading", neutral.uploading)?,
            parked: fields.or("parked", neutral.parked)?,
            recording: fields.or("recording", neutral.recording)?,
            streak: fields.or("streak", neutral.streak)?,
            goodput: fields.or("goodput", neutral.goodput)?,
            disk_free: fields.or("disk_free", neutral.disk_free)?,
            memo: fields.or("memo", neutral.memo)?,
            seed: fields.or("seed", neutral.seed)?,
        };
        fields.done()?;
        Ok(now)
    }
}

/// An array of pairs, for their sequence is part of the question.
fn labels(labels: &[(String, String)]) -> Value {
    labels.iter().map(|(key, value)| json!([key, value])).collect()
}

fn candidate(candidate: &Candidate) -> Value {
    let Candidate { episode, device, size, age_ms, tries, labels: given } = candidate;
    json!({
        "id": episode,
        "device": device,
        "size": size,
        "age": age_ms,
        "tries": tries,
        "labels": labels(given),
    })
}

impl Field for Candidate {
    fn read(path: &str, value: &Value) -> Result<Candidate, JsonError> {
        let mut fields = Fields::of(path, value)?;
        let candidate = Candidate {
            episode: fields.required("id")?,
            device: fields.or("device", String::new())?,
            size: fields.or("size", 0)?,
            age_ms: fields.or("age", 0)?,
            tries: fields.or("tries", 0)?,
            labels: fields.or("labels", Vec::new())?,
        };
        fields.done()?;
        Ok(candidate)
    }
}

fn waiting(waiting: &Waiting) -> Value {
    let Waiting { job, device, size, spent, queued_ms, age_ms, labels: given } = waiting;
    json!({
        "job": job,
        "device": device,
        "size": size,
        "spent": spent,
        "queued": queued_ms,
        "age": age_ms,
        "labels": labels(given),
    })
}

impl Field for Waiting {
    fn read(path: &str, value: &Value) -> Result<Waiting, JsonError> {
        let mut fields = Fields::of(path, value)?;
        let waiting = Waiting {
            job: fields.required("job")?,
            device: fields.or("device", String::new())?,
            size: fields.or("size", 0)?,
            spent: fields.or("spent", 0)?,
            queued_ms: fields.or("queued", 0)?,
            age_ms: fields.or("age", 0)?,
            labels: fields.or("labels", Vec::new())?,
        };
        fields.done()?;
        Ok(waiting)
    }
}

fn attempt(query: &RetryQuery) -> Value {
    json!({
        "job": query.job,
        "spent": query.spent,
        "class": word(query.class),
        "subject": word(query.subject),
        "code": query.code,
        "elapsed": query.elapsed_ms,
        "last_delay": query.last_delay_ms,
        "size": query.size,
        "sent": query.sent,
        "link": word(query.link),
        "metered": word(query.metered),
        "memo": query.memo,
        "seed": query.seed,
    })
}

impl Field for RetryQuery {
    fn read(path: &str, value: &Value) -> Result<RetryQuery, JsonError> {
        let mut fields = Fields::of(path, value)?;
        let query = RetryQuery {
            job: fields.or("job", 0)?,
            spent: fields.required("spent")?,
            class: fields.required("class")?,
            subject: fields.required("subject")?,
            code: fields.or("code", String::new())?,
            elapsed_ms: fields.or("elapsed", 0)?,
            last_delay_ms: fields.or("last_delay", 0)?,
            size: fields.or("size", 0)?,
            sent: fields.or("sent", 0)?,
            link: fields.or_default("link")?,
            metered: fields.or_default("metered")?,
            memo: fields.or("memo", 0)?,
            seed: fields.or("seed", 0)?,
        };
        fields.done()?;
        Ok(query)
    }
}

impl Field for Chosen {
    fn read(path: &str, value: &Value) -> Result<Chosen, JsonError> {
        let mut fields = Fields::of(path, value)?;
        let chosen = Chosen { choice: fields.required("action")?, reason: fields.or("reason", 0)? };
        fields.done()?;
        Ok(chosen)
    }
}

impl Field for RetryAction {
    fn read(path: &str, value: &Value) -> Result<RetryAction, JsonError> {
        const SHAPES: &str =
            "\"park\", {\"after\": <milliseconds>} or {\"give-up\": \"exhausted\" or \"hopeless\"}";
        if value == "park" {
            return Ok(RetryAction::Park);
        }
        let only = |map: &Map<String, Value>| map.len() == 1;
        match value.as_object().filter(|map| only(map)) {
            Some(map) if map.contains_key("after") => {
                let mut fields = Fields::of(path, value)?;
                Ok(RetryAction::After { delay_ms: fields.required("after")? })
            }
            Some(map) if map.contains_key("give-up") => {
                let mut fields = Fields::of(path, value)?;
                let why: GiveUp = fields.required("give-up")?;
                Ok(RetryAction::GiveUp(why))
            }
            Some(_) | None => Err(expected(path, SHAPES, value)),
        }
    }
}

impl Field for SettingValue {
    fn read(path: &str, value: &Value) -> Result<SettingValue, JsonError> {
        match value {
            Value::Bool(flag) => Ok(SettingValue::Flag(*flag)),
            Value::String(text) => Ok(SettingValue::Text(text.clone())),
            Value::Number(number) => number
                .as_i64()
                .map(SettingValue::Int)
                .ok_or_else(|| expected(path, "true, false, a whole number of 64 bits or a text", value)),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                Err(expected(path, "true, false, a whole number of 64 bits or a text", value))
            }
        }
    }
}

#[cfg(test)]
mod tests;
