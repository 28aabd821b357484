//! Calendar dates in UTC from wall time: for keys in the cloud and made-up task ids. Knows no time zone and no clock.

use alloc::string::String;

use crate::time::Wall;

const DAY_MS: i64 = 86_400_000;
/// Days in 400 Gregorian years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01, where an era begins, to 1970-01-01.
const EPOCH_DAY: i64 = 719_468;

/// `YYYY-MM-DD`.
pub(super) fn dashed(at: Wall) -> String {
    let (year, month, day) = civil(at.0.div_euclid(DAY_MS));
    alloc::format!("{year:04}-{month:02}-{day:02}")
}

/// `YYYYMMDD_HHMMSS`.
pub(super) fn compact(at: Wall) -> String {
    let (year, month, day) = civil(at.0.div_euclid(DAY_MS));
    let second = at.0.rem_euclid(DAY_MS) / 1000;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    alloc::format!("{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}")
}

/// Year, month and day of a day counted from 1970-01-01. Years begin in March here, so that the leap day is the last.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + EPOCH_DAY;
    let (era, of_era) = (day.div_euclid(ERA_DAYS), day.rem_euclid(ERA_DAYS));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_their_dates() {
        for (ms, date, stamp) in [
            (0, "1970-01-01", "19700101_000000"),
            (-1, "1969-12-31", "19691231_235959"),
            (951_782_399_999, "2000-02-28", "20000228_235959"),
            (951_782_400_000, "2000-02-29", "20000229_000000"),
            (951_868_800_000, "2000-03-01", "20000301_000000"),
            (1_795_224_841_330, "2026-11-21", "20261121_013401"),
            (4_107_542_399_000, "2100-02-28", "21000228_235959"),
            (4_107_542_400_000, "2100-03-01", "21000301_000000"),
        ] {
            assert_eq!(dashed(Wall(ms)), date, "{ms}");
            assert_eq!(compact(Wall(ms)), stamp, "{ms}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for n in 0..ERA_DAYS {
            assert_eq!(civil(n), (year, month, day), "day {n}");
            let last = match month {
                2 => 28 + i64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        assert!(!dashed(Wall(i64::MAX)).contains('/'));
        assert!(!compact(Wall(i64::MIN)).contains('/'));
    }
}
