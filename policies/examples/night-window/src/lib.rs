//! Uploads at night and at weekends; by day only as many as allowed. Where bytes cost money they go slowly.
#![no_std]

use tidegate_sdk::{
    About, Bandwidth, Concurrency, DAY_MINUTES, DAY_MS, Known, MINUTE_MS, Policy, Setting, Settings, Situation, String,
    bandwidth, concurrency, export,
};

const NIGHT: u16 = 1;
const WEEKEND: u16 = 2;
const DAY: u16 = 3;
const METERED: u16 = 4;
const UNMETERED: u16 = 5;

struct NightWindow {
    /// Minutes of a day. The window may go over midnight.
    opens: u16,
    closes: u16,
    weekends: bool,
    uploads: u16,
    uploads_by_day: u16,
    metered_cap: u64,
    cap: Option<u64>,
}

impl Policy for NightWindow {
    const ABOUT: About = About {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        summary: env!("CARGO_PKG_DESCRIPTION"),
        reasons: &["night", "weekend", "day", "metered", "unmetered"],
        settings: &[
            Setting::int("from-minute", 1320, "minute of the day at which the window opens; 1320 is 22:00"),
            Setting::int("until-minute", 360, "minute of the day at which it closes; 360 is 06:00"),
            Setting::flag("weekends", false, "Saturday and Sunday belong to the window"),
            Setting::int("uploads", 4, "uploads at once inside the window"),
            Setting::int("uploads-by-day", 0, "uploads at once outside the window"),
            Setting::int("metered-bytes-per-second", 250_000, "over all uploads, while bytes cost money"),
            Setting::int("bytes-per-second", 0, "over all uploads otherwise; 0 is no limit"),
        ],
        // A week with a holiday before a window opens again is no fault.
        patience_ms: 8 * DAY_MS,
    };

    fn configure(settings: &Settings) -> Result<Self, String> {
        let last = i64::from(DAY_MINUTES) - 1;
        Ok(NightWindow {
            opens: settings.int_in("from-minute", 0..=last)? as u16,
            closes: settings.int_in("until-minute", 0..=last)? as u16,
            weekends: settings.flag("weekends"),
            uploads: settings.int_in("uploads", 1..=1000)? as u16,
            uploads_by_day: settings.int_in("uploads-by-day", 0..=1000)? as u16,
            metered_cap: settings.int_in("metered-bytes-per-second", 1..=i64::MAX)?,
            cap: Some(settings.int_in("bytes-per-second", 0..=i64::MAX)?).filter(|cap| *cap > 0),
        })
    }
}

impl NightWindow {
    fn is_open(&self, minute: u16) -> bool {
        if self.opens <= self.closes {
            self.opens <= minute && minute < self.closes
        } else {
            self.opens <= minute || minute < self.closes
        }
    }
}

impl Concurrency for NightWindow {
    fn limits(&self, now: &Situation) -> concurrency::Limits {
        let (day, minute) = (now.minute_of_week / DAY_MINUTES, now.minute_of_week % DAY_MINUTES);
        let (uploads, recheck, reason) = if self.weekends && day >= 5 {
            (self.uploads, 0, WEEKEND)
        } else if self.is_open(minute) {
            (self.uploads, 0, NIGHT)
        } else {
            // The next change is when the window opens; the site asks again within the hour in any case.
            let wait = (self.opens + DAY_MINUTES - minute) % DAY_MINUTES;
            (self.uploads_by_day, u64::from(wait) * MINUTE_MS, DAY)
        };
        concurrency::Limits { uploads, recheck, memo: 0, reason }
    }
}

impl Bandwidth for NightWindow {
    fn budget(&self, now: &Situation) -> bandwidth::Budget {
        let (bytes_per_second, reason) = match now.metered {
            Known::Yes => (Some(self.cap.map_or(self.metered_cap, |cap| cap.min(self.metered_cap))), METERED),
            Known::Unknown | Known::No => (self.cap, UNMETERED),
        };
        bandwidth::Budget { bytes_per_second, recheck: MINUTE_MS, memo: 0, reason }
    }
}

export!(NightWindow: concurrency, bandwidth);
