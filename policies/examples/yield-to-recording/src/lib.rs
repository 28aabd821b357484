//! Uploads give way while robots record, and for some minutes after: the next recording often follows at once.
#![no_std]

use tidegate_sdk::{
    About, Bandwidth, Concurrency, MINUTE_MS, Policy, Setting, Settings, Situation, String, bandwidth, concurrency, export,
};

const RECORDING: u16 = 1;
const LINGERING: u16 = 2;
const QUIET: u16 = 3;

const WEEK_MINUTES: u64 = 7 * 1440;

struct YieldToRecording {
    uploads: u16,
    uploads_recording: u16,
    cap: Option<u64>,
    cap_recording: Option<u64>,
    linger: u64,
}

impl Policy for YieldToRecording {
    const ABOUT: About = About {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        summary: env!("CARGO_PKG_DESCRIPTION"),
        reasons: &["recording", "lingering", "quiet"],
        settings: &[
            Setting::int("uploads", 4, "uploads at once while nobody records"),
            Setting::int("uploads-while-recording", 1, "uploads at once while somebody records"),
            Setting::int("bytes-per-second", 0, "over all uploads while nobody records; 0 is no limit"),
            Setting::int("bytes-per-second-while-recording", 500_000, "while somebody records; 0 is no limit"),
            Setting::int("linger-minutes", 2, "minutes after a recording that still count as recording"),
        ],
        patience_ms: 0,
    };

    fn configure(settings: &Settings) -> Result<Self, String> {
        let cap = |key| settings.int_in(key, 0..=i64::MAX).map(|cap| Some(cap).filter(|cap| *cap > 0));
        Ok(YieldToRecording {
            uploads: settings.int_in("uploads", 1..=1000)? as u16,
            uploads_recording: settings.int_in("uploads-while-recording", 0..=1000)? as u16,
            cap: cap("bytes-per-second")?,
            cap_recording: cap("bytes-per-second-while-recording")?,
            linger: settings.int_in("linger-minutes", 0..=1440)?,
        })
    }
}

impl YieldToRecording {
    /// Whether to give way, why, and what to remember: the minute of the week at which somebody last recorded, plus one.
    fn look(&self, now: &Situation) -> (bool, u16, u64) {
        let minute = u64::from(now.minute_of_week) % WEEK_MINUTES;
        if now.recording > 0 {
            return (true, RECORDING, minute + 1);
        }
        let Some(last) = now.memo.checked_sub(1) else { return (false, QUIET, 0) };
        let since = (minute + WEEK_MINUTES - last % WEEK_MINUTES) % WEEK_MINUTES;
        if since < self.linger { (true, LINGERING, now.memo) } else { (false, QUIET, 0) }
    }
}

impl Concurrency for YieldToRecording {
    fn limits(&self, now: &Situation) -> concurrency::Limits {
        let (give_way, reason, memo) = self.look(now);
        let uploads = if give_way { self.uploads_recording } else { self.uploads };
        concurrency::Limits { uploads, recheck: if give_way { MINUTE_MS / 4 } else { 0 }, memo, reason }
    }
}

impl Bandwidth for YieldToRecording {
    fn budget(&self, now: &Situation) -> bandwidth::Budget {
        let (give_way, reason, memo) = self.look(now);
        let bytes_per_second = if give_way { self.cap_recording } else { self.cap };
        bandwidth::Budget { bytes_per_second, recheck: 0, memo, reason }
    }
}

export!(YieldToRecording: concurrency, bandwidth);
