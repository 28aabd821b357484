//! The job whose deadline is nearest goes first. A device's label `deadline-hours` says how long after its approval a
//! recording should be in the cloud. Everything ages alike, so that a job without a deadline has its turn too.
#![no_std]

use tidegate_sdk::{
    About, HOUR_MS, Level, MINUTE_MS, Order, Policy, Setting, Settings, Situation, String, Vec, export, label, log,
    order, text,
};

const DEADLINE: u16 = 1;
const OLDEST: u16 = 2;

const LABEL: &str = "deadline-hours";

struct DeadlineFirst {
    usual_ms: i64,
    setback_ms: i64,
}

impl Policy for DeadlineFirst {
    const ABOUT: About = About {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        summary: env!("CARGO_PKG_DESCRIPTION"),
        reasons: &["nearest-deadline", "oldest-first"],
        settings: &[
            Setting::int("usual-hours", 72, "deadline of recordings whose device has no label deadline-hours"),
            Setting::int("setback-minutes", 10, "each attempt spent moves a job back by so much"),
        ],
        patience_ms: 0,
    };

    fn configure(settings: &Settings) -> Result<Self, String> {
        Ok(DeadlineFirst {
            usual_ms: hours(settings.int_in("usual-hours", 1..=100_000)?),
            setback_ms: (settings.int_in("setback-minutes", 0..=100_000)? * MINUTE_MS) as i64,
        })
    }
}

impl Order for DeadlineFirst {
    fn score(&self, _: &Situation, batch: Vec<order::Candidate>) -> order::Ordering {
        let mut reason = OLDEST;
        let mut scores = Vec::with_capacity(batch.len());
        for job in &batch {
            let deadline = deadline(job).inspect(|_| reason = DEADLINE).unwrap_or(self.usual_ms);
            // Milliseconds over the deadline: it grows with age alone, the same for every job.
            let over = i64::try_from(job.age).unwrap_or(i64::MAX).saturating_sub(deadline);
            scores.push(over.saturating_sub(self.setback_ms.saturating_mul(i64::from(job.spent))));
        }
        order::Ordering { scores, reason }
    }
}

/// Milliseconds between approval and deadline, if the device has one.
fn deadline(job: &order::Candidate) -> Option<i64> {
    let words = label(&job.labels, LABEL)?;
    match words.parse::<u32>() {
        Ok(number) => Some(hours(u64::from(number))),
        Err(_) => {
            log(Level::Warn, &text(&[LABEL, " of ", &job.device, " is no whole number: ", words]));
            None
        }
    }
}

fn hours(number: u64) -> i64 {
    (number * HOUR_MS) as i64
}

export!(DeadlineFirst: order);
