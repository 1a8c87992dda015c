//! The name of a kept boot: when the kernel started by the machine's clock in UTC, and the beginning of the boot's id, so
//! that names sort by time and no two boots have the same.

/// Digits of the boot's id in the name.
const DIGITS: usize = 8;
/// The form of a name; `0` stands for a digit, `x` for a digit of base 16.
const FORM: &str = "0000-00-00T00-00-00Z-xxxxxxxx.json";
/// What a name ends with.
pub(super) const ENDING: &str = ".json";
/// The last second of the year 9999: later ones have more digits.
const LAST: u64 = 253_402_300_799;

/// Day and time of a moment in UTC, in this form: `2026-11-23 20:05:11`. `seconds` since 1970. Source of the arithmetic: the
/// civil calendar's 400-year cycle of 146,097 days, with years that begin in March, so that the leap day is the last.
#[must_use]
pub fn utc(seconds: u64) -> String {
    let seconds = seconds.min(LAST);
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds % 86_400 / 3600, seconds % 3600 / 60, seconds % 60);
    format!("{year:04}-{month:02}-{day_of_month:02} {hour:02}:{minute:02}:{second:02}")
}

/// The name of the file of the boot that began at `started` (seconds since 1970); `None` for an id without eight digits of
/// base 16.
#[must_use]
pub(super) fn file_name(started: u64, boot_id: &str) -> Option<String> {
    let time = utc(started).replace(' ', "T").replace(':', "-");
    Some(format!("{time}Z-{}{ENDING}", digits(boot_id)?))
}

/// The part of a boot's id that is in its name.
#[must_use]
pub(super) fn digits(boot_id: &str) -> Option<String> {
    let digits: String =
        boot_id.chars().filter(char::is_ascii_hexdigit).take(DIGITS).map(|digit| digit.to_ascii_lowercase()).collect();
    (digits.len() == DIGITS).then_some(digits)
}

/// Whether a file's name is that of a kept boot; nothing else in the folder is ours.
#[must_use]
pub(super) fn is_ours(name: &str) -> bool {
    let fits = |(byte, form): (u8, u8)| match form {
        b'0' => byte.is_ascii_digit(),
        b'x' => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        other => byte == other,
    };
    name.len() == FORM.len() && name.bytes().zip(FORM.bytes()).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_795_464_311, "2026-11-23 20:05:11"),
            (LAST, "9999-12-31 23:59:59"),
            (u64::MAX, "9999-12-31 23:59:59"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn only_names_of_this_form_are_ours() {
        let name = file_name(1_795_464_311, "5F1C3A90-1b2c").unwrap();
        assert_eq!(name, "2026-11-23T20-05-11Z-5f1c3a90.json");
        assert!(is_ours(&name));
        assert_eq!(file_name(0, "5f1c-3a9"), None);
        for other in ["notes.json", "", "2026-11-23T20-05-11Z-5f1c3a90.json~", "2026-11-23T20-05-11Z-5f1c3a9z.json"] {
            assert!(!is_ours(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn names_sort_by_time(a in 0..LAST, b in 0..LAST, id in "[0-9a-f]{8}") {
            let name = |at| file_name(at, &id).unwrap();
            prop_assert!(is_ours(&name(a)));
            prop_assert_eq!(name(a).cmp(&name(b)), a.cmp(&b));
        }

        #[test]
        fn no_name_makes_it_panic(name in "\\PC{0,40}") {
            let _ = (is_ours(&name), digits(&name));
        }
    }
}
