//! Timestamps: RFC 3339 text <-> milliseconds since 1970.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A timestamp that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// Milliseconds since 1970-01-01T00:00:00Z, rounded towards the past.
    pub millis: i64,
    /// Whether [`print_millis`] makes the same text of `millis`.
    pub exact: bool,
}

/// The years 1 to 9999 in UTC, which readers in every language can hold. Python's `datetime` has no others, and its
/// Avro readers fail on the whole record.
const MILLIS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// Reads RFC 3339 text; `None` for any other text, or a time outside of the years 1 to 9999.
#[inline]
pub fn read_rfc3339(text: &str) -> Option<Timestamp> {
    let read = match read_canonical(text.as_bytes()) {
        Some(millis) => Timestamp { millis, exact: true },
        None => read_any(text)?,
    };
    MILLIS.contains(&read.millis).then_some(read)
}

/// Reads the one form that [`print_millis`] makes, as milliseconds since 1970; `None` for any other.
#[inline]
pub fn read_exact(text: &[u8]) -> Option<i64> {
    read_canonical(text).filter(|millis| MILLIS.contains(millis))
}

fn read_any(text: &str) -> Option<Timestamp> {
    // The crate `time` takes any character between date and time; RFC 3339 allows only this one.
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
        return None;
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let millis = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
    Some(Timestamp { millis, exact: false })
}

/// Prints milliseconds since 1970 as `YYYY-MM-DDTHH:MM:SS.mmmZ`; `None` outside of the years 1 to 9999.
pub fn print_millis(millis: i64) -> Option<String> {
    if !MILLIS.contains(&millis) {
        return None;
    }
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()?;
    Some(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    ))
}

/// Reads the form that ASAPP sends, eight characters at a time and without a general parser: an event has twenty
/// timestamps.
#[inline]
fn read_canonical(text: &[u8]) -> Option<i64> {
    let (chunks, []) = <&[u8; 24]>::try_from(text).ok()?.as_chunks::<8>() else { return None };
    let [date, hours, seconds] = chunks else { return None };
    let date = pairs(*date, *b"0000-00-")?;
    let hours = pairs(*hours, *b"00T00:00")?;
    let seconds = pairs(*seconds, *b":00.000Z")?;
    let number = |pairs: u64, position: u32| (pairs >> (8 * position) & 0xFF) as u32;
    let (year, month, day) = (number(date, 0) * 100 + number(date, 2), number(date, 5), number(hours, 0));
    let (hour, minute, second) = (number(hours, 3), number(hours, 6), number(seconds, 1));
    let millis = number(seconds, 4) * 10 + number(seconds, 5) % 10;
    if hour > 23 || minute > 59 || second > 59 || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let seconds = hour * 3_600 + minute * 60 + second;
    Some(days_since_1970(year, month, day) * 86_400_000 + i64::from(seconds * 1_000 + millis))
}

/// Reads pairs of digits from text that has digits where `form` has `0` and equals `form` elsewhere. Each byte of the
/// result is the number of the two digits that start there; a byte is meaningless where one of the two is no digit, and
/// at the end.
#[inline]
fn pairs(text: [u8; 8], form: [u8; 8]) -> Option<u64> {
    let digits = u64::from_le_bytes(form.map(|byte| if byte == b'0' { 0xFF } else { 0 }));
    // Each digit becomes its value; each other character, equal in both, becomes 0.
    let values = u64::from_le_bytes(text) ^ u64::from_le_bytes(form);
    let wrong = (values | values.wrapping_add(0x0606_0606_0606_0606)) & 0xF0F0_F0F0_F0F0_F0F0 | values & !digits;
    (wrong == 0).then(|| values * 10 + (values >> 8))
}

/// The number of days; 0 for a number that is no month.
fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => 0,
    }
}

/// Counts days of the proleptic Gregorian calendar. Years start in March here, so that the leap day is the last.
fn days_since_1970(year: u32, month: u32, day: u32) -> i64 {
    // 400 years, or 146,097 days, are added and taken off again, so that nothing is negative.
    let (year, month) = if month > 2 { (year + 400, month - 3) } else { (year + 399, month + 9) };
    let before_year = 365 * year + year / 4 - year / 100 + year / 400;
    let before_month = (153 * month + 2) / 5;
    // 0000-03-01 is 719,468 days before 1970-01-01.
    i64::from(before_year + before_month + day) - 1 - 719_468 - 146_097
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn odd_texts() {
        let exact = |millis| Some(Timestamp { millis, exact: true });
        let inexact = |millis| Some(Timestamp { millis, exact: false });
        for (text, expected) in [
            ("1970-01-01T00:00:00.000Z", exact(0)),
            ("2024-02-29T23:59:59.999Z", exact(1_709_251_199_999)),
            ("0001-01-01T00:00:00.000Z", exact(-62_135_596_800_000)),
            ("0000-12-31T23:59:59.999Z", None),
            ("9999-12-31T23:59:59.999-00:01", None),
            ("2022-06-21 20:10:24.411Z", None),
            ("1969-12-31T23:59:59.999Z", exact(-1)),
            ("1969-12-31T23:59:59.9999Z", inexact(-1)),
            ("2022-06-21T20:10:24Z", inexact(1_655_842_224_000)),
            ("2022-06-21T22:10:24.411+02:00", inexact(1_655_842_224_411)),
            ("2022-06-21T20:10:24.411999Z", inexact(1_655_842_224_411)),
            ("2023-02-29T00:00:00.000Z", None),
            ("2023-13-01T00:00:00.000Z", None),
            ("2023-00-01T00:00:00.000Z", None),
            ("2023-01-01T24:00:00.000Z", None),
            ("2023-01-01", None),
            ("", None),
            ("2022-06-21T20:10:24.4é1Z", None),
        ] {
            assert_eq!(read_rfc3339(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_millisecond_reads_as_it_prints(millis in MILLIS) {
            let text = print_millis(millis).unwrap();
            prop_assert_eq!(read_rfc3339(&text), Some(Timestamp { millis, exact: true }));
            let parsed = OffsetDateTime::parse(&text, &Rfc3339).unwrap();
            prop_assert_eq!(parsed.unix_timestamp_nanos(), i128::from(millis) * 1_000_000);
        }
    }
}
