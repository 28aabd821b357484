//! The built-in policies as a module: all five hooks. Translates between the contract and the rules, and decides nothing.
#![no_std]

extern crate alloc;

#[expect(dead_code, reason = "rules and questions have words that these rules do not use")]
mod rules;

use rules::builtin::{self, REASONS, Rules};
use rules::question as core;
use tidegate_sdk::{
    About, AutoScan, Bandwidth, Concurrency, Known, LinkKind, Order, Policy, Power, Retry, Setting, Settings, Situation,
    String, Value, Vec, auto_scan, bandwidth, concurrency, order, retry, text,
};

struct BuiltIn(Rules);

/// The settings of the rules, as the contract has them.
const SETTINGS: [Setting; builtin::SETTINGS.len()] = {
    let mut settings = [Setting::flag("", false, ""); builtin::SETTINGS.len()];
    let mut at = 0;
    while at < settings.len() {
        let (key, default, help) = builtin::SETTINGS[at];
        settings[at] = match default {
            builtin::Setting::Flag(on) => Setting::flag(key, on, help),
            builtin::Setting::Int(number) => Setting::int(key, number, help),
        };
        at += 1;
    }
    settings
};

impl Policy for BuiltIn {
    const ABOUT: About = About {
        name: "tidegate-default",
        version: env!("CARGO_PKG_VERSION"),
        summary: "the built-in policies: all or none of the episodes, oldest first, fixed limits, doubling delays",
        reasons: &REASONS,
        settings: &SETTINGS,
        patience_ms: 0,
    };

    fn configure(settings: &Settings) -> Result<Self, String> {
        let mut rules = Rules::default();
        // The defaults of the rules are the defaults of the settings.
        for (key, value) in settings.given() {
            let value = match value {
                Value::Flag(on) => builtin::Setting::Flag(*on),
                Value::Int(number) => builtin::Setting::Int(*number),
                Value::Text(_) => return Err(text(&[key, " must be no text"])),
            };
            rules.set(key, value).map_err(|why| text(&[key, " ", why]))?;
        }
        Ok(BuiltIn(rules))
    }
}

impl AutoScan for BuiltIn {
    fn select(&self, now: &Situation, batch: Vec<auto_scan::Episode>) -> Vec<auto_scan::Choice> {
        let candidates: Vec<core::Candidate> = batch
            .into_iter()
            .map(|episode| core::Candidate {
                episode: episode.id,
                device: episode.device,
                size: episode.size,
                age_ms: episode.age,
                tries: episode.tries,
                labels: episode.labels,
            })
            .collect();
        let chosen = self.0.select(&situation(now), &candidates);
        chosen
            .into_iter()
            .map(|chosen| auto_scan::Choice {
                action: match chosen.choice {
                    core::Choice::Enqueue => auto_scan::Action::Enqueue,
                    core::Choice::Later => auto_scan::Action::Later,
                    core::Choice::Skip => auto_scan::Action::Skip,
                },
                reason: chosen.reason,
            })
            .collect()
    }
}

impl Retry for BuiltIn {
    fn next(&self, attempt: retry::Attempt) -> retry::Decision {
        let verdict = self.0.retry(&core::RetryQuery {
            job: attempt.job,
            spent: attempt.spent,
            class: match attempt.class {
                retry::ErrorClass::Vanished => core::ErrorClass::Vanished,
                retry::ErrorClass::Damaged => core::ErrorClass::Damaged,
                retry::ErrorClass::Rejected => core::ErrorClass::Rejected,
                retry::ErrorClass::Other => core::ErrorClass::Other,
            },
            subject: match attempt.subject {
                retry::Subject::Object => core::Subject::Object,
                retry::Subject::Upload => core::Subject::Upload,
                retry::Subject::Part => core::Subject::Part,
                retry::Subject::Source => core::Subject::Source,
            },
            code: attempt.code,
            elapsed_ms: attempt.elapsed,
            last_delay_ms: attempt.last_delay,
            size: attempt.size,
            sent: attempt.sent,
            link: link(attempt.link),
            metered: known(attempt.metered),
            memo: attempt.memo,
            seed: attempt.seed,
        });
        retry::Decision {
            action: match verdict.action {
                core::RetryAction::After { delay_ms } => retry::Action::After(delay_ms),
                core::RetryAction::Park => retry::Action::Park,
                core::RetryAction::GiveUp(core::GiveUp::Exhausted) => retry::Action::GiveUp(retry::Abandon::Exhausted),
                core::RetryAction::GiveUp(core::GiveUp::Hopeless) => retry::Action::GiveUp(retry::Abandon::Hopeless),
            },
            memo: verdict.memo,
            reason: verdict.reason,
        }
    }
}

impl Concurrency for BuiltIn {
    fn limits(&self, now: &Situation) -> concurrency::Limits {
        let limits = self.0.limits(&situation(now));
        concurrency::Limits {
            uploads: u16::try_from(limits.uploads).unwrap_or(u16::MAX),
            recheck: limits.recheck_ms,
            memo: limits.memo,
            reason: limits.reason,
        }
    }
}

impl Bandwidth for BuiltIn {
    fn budget(&self, now: &Situation) -> bandwidth::Budget {
        let budget = self.0.budget(&situation(now));
        bandwidth::Budget {
            bytes_per_second: budget.bytes_per_second,
            recheck: budget.recheck_ms,
            memo: budget.memo,
            reason: budget.reason,
        }
    }
}

impl Order for BuiltIn {
    fn score(&self, now: &Situation, batch: Vec<order::Candidate>) -> order::Ordering {
        let waiting: Vec<core::Waiting> = batch
            .into_iter()
            .map(|candidate| core::Waiting {
                job: candidate.job,
                device: candidate.device,
                size: candidate.size,
                spent: candidate.spent,
                queued_ms: candidate.queued,
                age_ms: candidate.age,
                labels: candidate.labels,
            })
            .collect();
        let ordering = self.0.score(&situation(now), &waiting);
        order::Ordering { scores: ordering.scores, reason: ordering.reason }
    }
}

fn situation(now: &Situation) -> core::Situation {
    core::Situation {
        link: link(now.link),
        metered: known(now.metered),
        power: match now.power {
            Power::Unknown => core::Power::Unknown,
            Power::Mains => core::Power::Mains,
            Power::Battery => core::Power::Battery,
            Power::BatteryLow => core::Power::BatteryLow,
        },
        minute_of_week: now.minute_of_week,
        due: now.due,
        waiting: now.waiting,
        uploading: now.uploading,
        parked: now.parked,
        recording: now.recording,
        streak: now.streak,
        goodput: now.goodput,
        disk_free: now.disk_free,
        memo: now.memo,
        seed: now.seed,
    }
}

fn link(link: LinkKind) -> core::LinkKind {
    match link {
        LinkKind::Unknown => core::LinkKind::Unknown,
        LinkKind::None => core::LinkKind::None,
        LinkKind::Ethernet => core::LinkKind::Ethernet,
        LinkKind::Wifi => core::LinkKind::Wifi,
        LinkKind::Cellular => core::LinkKind::Cellular,
        LinkKind::Satellite => core::LinkKind::Satellite,
        LinkKind::Other => core::LinkKind::Other,
    }
}

fn known(known: Known) -> core::Known {
    match known {
        Known::Unknown => core::Known::Unknown,
        Known::No => core::Known::No,
        Known::Yes => core::Known::Yes,
    }
}

tidegate_sdk::export!(BuiltIn: auto_scan, retry, concurrency, bandwidth, order);
