//! Questions and verdicts of the core as types of the contract, and back. Every field and every case by name, so that the
//! compiler finds what one side has and the other has not. Judges nothing: an answer of the wrong length passes here.

use tidegate_core::policy::{
    Bandwidth, Candidate, Choice, Chosen, ErrorClass, GiveUp, Known, LinkKind, Ordering, Power, RetryAction,
    RetryQuery, RetryVerdict, SettingValue, Situation, Subject, UploadLimits, Waiting,
};

use crate::contract::hooks::{auto_scan, bandwidth, concurrency, meta, order, retry};
use crate::contract::types;

fn link(link: LinkKind) -> types::LinkKind {
    match link {
        LinkKind::Unknown => types::LinkKind::Unknown,
        LinkKind::None => types::LinkKind::None,
        LinkKind::Ethernet => types::LinkKind::Ethernet,
        LinkKind::Wifi => types::LinkKind::Wifi,
        LinkKind::Cellular => types::LinkKind::Cellular,
        LinkKind::Satellite => types::LinkKind::Satellite,
        LinkKind::Other => types::LinkKind::Other,
    }
}

fn known(known: Known) -> types::Known {
    match known {
        Known::Unknown => types::Known::Unknown,
        Known::No => types::Known::No,
        Known::Yes => types::Known::Yes,
    }
}

fn power(power: Power) -> types::Power {
    match power {
        Power::Unknown => types::Power::Unknown,
        Power::Mains => types::Power::Mains,
        Power::Battery => types::Power::Battery,
        Power::BatteryLow => types::Power::BatteryLow,
    }
}

pub(crate) fn situation(situation: &Situation) -> types::Situation {
    let Situation {
        link: way,
        metered,
        power: source,
        minute_of_week,
        due,
        waiting,
        uploading,
        parked,
        recording,
        streak,
        goodput,
        disk_free,
        memo,
        seed,
    } = situation;
    types::Situation {
        link: link(*way),
        metered: known(*metered),
        power: power(*source),
        minute_of_week: *minute_of_week,
        due: *due,
        waiting: *waiting,
        uploading: *uploading,
        parked: *parked,
        recording: *recording,
        streak: *streak,
        goodput: *goodput,
        disk_free: *disk_free,
        memo: *memo,
        seed: *seed,
    }
}

pub(crate) fn episode(candidate: &Candidate) -> auto_scan::Episode {
    let Candidate { episode, device, size, age_ms, tries, labels } = candidate;
    auto_scan::Episode {
        id: *episode,
        device: device.clone(),
        size: *size,
        age: *age_ms,
        tries: *tries,
        labels: labels.clone(),
    }
}

pub(crate) fn chosen(choice: &auto_scan::Choice) -> Chosen {
    let action = match choice.action {
        auto_scan::Action::Enqueue => Choice::Enqueue,
        auto_scan::Action::Later => Choice::Later,
        auto_scan::Action::Skip => Choice::Skip,
    };
    Chosen { choice: action, reason: choice.reason }
}

pub(crate) fn attempt(query: &RetryQuery) -> retry::Attempt {
    let RetryQuery {
        job,
        spent,
        class,
        subject,
        code,
        elapsed_ms,
        last_delay_ms,
        size,
        sent,
        link: way,
        metered,
        memo,
        seed,
    } = query;
    retry::Attempt {
        job: *job,
        spent: *spent,
        class: match class {
            ErrorClass::Vanished => retry::ErrorClass::Vanished,
            ErrorClass::Damaged => retry::ErrorClass::Damaged,
            ErrorClass::Rejected => retry::ErrorClass::Rejected,
            ErrorClass::Other => retry::ErrorClass::Other,
        },
        subject: match subject {
            Subject::Object => retry::Subject::Object,
            Subject::Upload => retry::Subject::Upload,
            Subject::Part => retry::Subject::Part,
            Subject::Source => retry::Subject::Source,
        },
        code: code.clone(),
        elapsed: *elapsed_ms,
        last_delay: *last_delay_ms,
        size: *size,
        sent: *sent,
        link: link(*way),
        metered: known(*metered),
        memo: *memo,
        seed: *seed,
    }
}

pub(crate) fn retried(decision: &retry::Decision) -> RetryVerdict {
    let action = match decision.action {
        retry::Action::After(delay_ms) => RetryAction::After { delay_ms },
        retry::Action::Park => RetryAction::Park,
        retry::Action::GiveUp(retry::Abandon::Exhausted) => RetryAction::GiveUp(GiveUp::Exhausted),
        retry::Action::GiveUp(retry::Abandon::Hopeless) => RetryAction::GiveUp(GiveUp::Hopeless),
    };
    RetryVerdict { action, memo: decision.memo, reason: decision.reason }
}

pub(crate) fn limits(limits: &concurrency::Limits) -> UploadLimits {
    let concurrency::Limits { uploads, recheck, memo, reason } = *limits;
    UploadLimits { uploads: uploads.into(), recheck_ms: recheck, memo, reason }
}

pub(crate) fn budget(budget: &bandwidth::Budget) -> Bandwidth {
    let bandwidth::Budget { bytes_per_second, recheck, memo, reason } = *budget;
    Bandwidth { bytes_per_second, recheck_ms: recheck, memo, reason }
}

pub(crate) fn candidate(waiting: &Waiting) -> order::Candidate {
    let Waiting { job, device, size, spent, queued_ms, age_ms, labels } = waiting;
    order::Candidate {
        job: *job,
        device: device.clone(),
        size: *size,
        spent: *spent,
        queued: *queued_ms,
        age: *age_ms,
        labels: labels.clone(),
    }
}

pub(crate) fn ordering(ordering: order::Ordering) -> Ordering {
    Ordering { scores: ordering.scores, reason: ordering.reason }
}

pub(crate) fn setting(key: &str, value: &SettingValue) -> meta::Setting {
    let value = match value {
        SettingValue::Flag(flag) => meta::Value::Flag(*flag),
        SettingValue::Int(int) => meta::Value::Int(*int),
        SettingValue::Text(text) => meta::Value::Text(text.clone()),
    };
    meta::Setting { key: key.to_owned(), value }
}

pub(crate) fn value(value: meta::Value) -> SettingValue {
    match value {
        meta::Value::Flag(flag) => SettingValue::Flag(flag),
        meta::Value::Int(int) => SettingValue::Int(int),
        meta::Value::Text(text) => SettingValue::Text(text),
    }
}
