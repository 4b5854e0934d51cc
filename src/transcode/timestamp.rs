//! Timestamps: RFC 3339 text <-> milliseconds since 1970.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A timestamp that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// Milliseconds since 1970-01-01T00:00:00Z, rounded towards the past.
    pub millis: i64,
    /// The text is what [`print_millis`] makes of `millis`.
    pub exact: bool,
}

/// The years 1 to 9999 in UTC: what readers in every language can hold. Python's `datetime` has no others,
/// and its Avro readers fail on the whole record.
const MILLIS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// Reads RFC 3339 text; `None` when it is none, or lies outside of the years 1 to 9999.
#[inline]
pub fn read_rfc3339(text: &str) -> Option<Timestamp> {
    let read = match read_canonical(text.as_bytes()) {
        Some(millis) => Timestamp { millis, exact: true },
        None => read_any(text)?,
    };
    MILLIS.contains(&read.millis).then_some(read)
}

fn read_any(text: &str) -> Option<Timestamp> {
    // `time` takes any character between date and time; RFC 3339 only this one.
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
        return None;
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let millis = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
    Some(Timestamp { millis, exact: false })
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ` of milliseconds since 1970, for the years 1 to 9999; `None` beyond.
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

/// The form that ASAPP sends, read without a general parser: an event has twenty of them.
#[inline]
fn read_canonical(text: &[u8]) -> Option<i64> {
    let &[y1, y2, y3, y4, b'-', o1, o2, b'-', d1, d2, b'T', h1, h2, b':', m1, m2, b':', s1, s2, b'.', f1, f2, f3, b'Z'] =
        text
    else {
        return None;
    };
    let digits = [y1, y2, y3, y4, o1, o2, d1, d2, h1, h2, m1, m2, s1, s2, f1, f2, f3];
    if digits.iter().fold(0, |wrong, digit| wrong | u8::from(digit.wrapping_sub(b'0') > 9)) != 0 {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0_i64, |number, digit| number * 10 + i64::from(digit - b'0'));
    let (year, month, day) = (number(&[y1, y2, y3, y4]), number(&[o1, o2]), number(&[d1, d2]));
    let (hour, minute, second) = (number(&[h1, h2]), number(&[m1, m2]), number(&[s1, s2]));
    if hour > 23 || minute > 59 || second > 59 || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(seconds * 1_000 + number(&[f1, f2, f3]))
}

/// 0 for what is no month.
fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => 0,
    }
}

/// Days of the proleptic Gregorian calendar, counted in years that start in March, so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before_year = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let before_month = (153 * month + 2) / 5;
    // 0000-03-01 is 719,468 days before 1970-01-01.
    before_year + before_month + day - 1 - 719_468
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
