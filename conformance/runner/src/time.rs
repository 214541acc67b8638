//! Days and times in UTC, as reports and waivers have them.

use std::time::{SystemTime, UNIX_EPOCH};
use toml::value::Date;

/// A day, counted from 1970-01-01.
pub type Day = i64;

/// Seconds since 1970, by this machine's clock; 0 where it stands before.
fn seconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Today, by this machine's clock.
pub fn today() -> Day {
    seconds() / 86_400
}

/// Now: `2026-11-22T10:00:00Z`.
pub fn now() -> String {
    instant(seconds())
}

/// A time of so many seconds since 1970.
pub fn instant(seconds: i64) -> String {
    let (day, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", date(day))
}

/// A day as `2026-11-22`.
pub fn date(day: Day) -> String {
    // Years are counted from March, so that the day that some have more is the last (proleptic Gregorian calendar).
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The number of a date.
pub fn day(date: Date) -> Day {
    let (year, month, day) = (i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        // From `date -u -d @N +%FT%TZ`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_799, "2024-02-28T23:59:59Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(instant(seconds), text);
        }
    }

    #[test]
    fn dates_and_days_are_inverse() {
        for number in (0..80_000).step_by(7) {
            let text = date(number);
            let parsed: toml::value::Datetime = text.parse().unwrap();
            assert_eq!(parsed.date.map(day), Some(number), "{text}");
        }
    }
}
