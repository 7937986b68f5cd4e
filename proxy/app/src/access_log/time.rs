//! A moment as RFC 3339, as every line begins with one.
//!
//! Invariant: nothing here allocates but by growing the sheet.

use super::digits;

/// Writes a time as RFC 3339 in UTC with microseconds.
///
/// Source: the calendar arithmetic is Howard Hinnant's `civil_from_days`, for days since 1970.
pub(super) fn write(out: &mut Vec<u8>, unix_nanos: u64) {
    let (seconds, micros) = (unix_nanos / 1_000_000_000, unix_nanos / 1_000 % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    digits::padded::<4>(out, year);
    for (before, number) in
        [(b'-', month), (b'-', day), (b'T', second / 3_600), (b':', second / 60 % 60), (b':', second % 60)]
    {
        out.push(before);
        digits::padded::<2>(out, number);
    }
    out.push(b'.');
    digits::padded::<6>(out, micros);
    out.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(unix_nanos: u64) -> String {
        let mut out = Vec::new();
        write(&mut out, unix_nanos);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(951_782_400_000_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(time(1_735_689_599_999_999_999), "2024-12-31T23:59:59.999999Z");
        assert_eq!(time(1_795_255_784_123_456_789), "2026-11-21T10:09:44.123456Z");
    }
}
