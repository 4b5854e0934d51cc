//! A sender's texts as values of CloudEvents' attributes (CloudEvents 1.0.2, "Type System").

use std::{borrow::Cow, fmt::Write};

/// A string attribute. Control characters and noncharacters are percent-encoded, as an attribute may have none.
pub fn string(text: &str) -> Cow<'_, str> {
    if all(text, |byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    encoded(text, |c| !c.is_control() && !is_noncharacter(c))
}

/// A URI-reference (RFC 3986, section 4.1). Text that is none is percent-encoded, which makes it one.
pub fn uri_reference(text: &str) -> Cow<'_, str> {
    // The fast case, which the names of events are: a path without a colon or an escape.
    if all(text, |byte| byte.is_ascii_alphabetic() || matches!(byte, b'-'..=b'9' | b'_')) {
        return Cow::Borrowed(text);
    }
    if is_uri_reference(text) {
        return Cow::Borrowed(text);
    }
    encoded(text, |c| u8::try_from(c).is_ok_and(|byte| is_plain(byte) && byte != b':'))
}

/// Whether `is` holds for each byte. Every event asks three times. Looking at all bytes is quicker than stopping at the
/// first that fails, as the compiler then compares many at once.
fn all(text: &str, is: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(true, |all, byte| all & is(byte))
}

fn encoded(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        if stays(c) {
            encoded.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    Cow::Owned(encoded)
}

fn is_uri_reference(text: &str) -> bool {
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    is_made_of_uri(before) && is_made_of_uri(fragment) && begins_rightly(before)
}

fn is_made_of_uri(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let is_escape = byte == b'%'
            && [bytes.next(), bytes.next()].iter().all(|next| next.is_some_and(|next| next.is_ascii_hexdigit()));
        if !is_escape && !is_plain(byte) {
            return false;
        }
    }
    true
}

/// Whether a colon in the first segment, if there is one, stands behind a scheme.
fn begins_rightly(text: &str) -> bool {
    let first = text.split(['/', '?']).next().unwrap_or_default();
    first.split_once(':').is_none_or(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// Whether a URI may hold the byte anywhere. `%` begins an escape, and `#`, `[` and `]` are allowed in few places: they
/// are not among these.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte)
}

fn is_noncharacter(c: char) -> bool {
    matches!(c, '\u{FDD0}'..='\u{FDEF}') || u32::from(c) & 0xFFFE == 0xFFFE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_uri_reference_is_encoded() {
        for name in ["com.asapp.event.journey", "urn:a:b", "/a?b=c#d", "https://a.example:1/b%20c", "a/b:c"] {
            assert!(matches!(uri_reference(name), Cow::Borrowed(same) if same == name), "{name}");
        }
        for (name, expected) in [
            ("a b", "a%20b"),
            ("100%", "100%25"),
            ("a%2", "a%252"),
            ("1:b", "1%3Ab"),
            ("a#b#c", "a%23b%23c"),
            ("[a]", "%5Ba%5D"),
            ("é\n", "%C3%A9%0A"),
        ] {
            assert_eq!(uri_reference(name), expected);
            assert_eq!(uri_reference(expected), expected, "it is one then");
        }
    }

    #[test]
    fn a_control_character_stands_in_no_attribute() {
        for (text, expected) in [
            ("an id, 100 %", "an id, 100 %"),
            ("日本", "日本"),
            ("a\tb\u{7f}\u{85}", "a%09b%7F%C2%85"),
            ("\u{FFFE}\u{FDD0}\u{1FFFF}", "%EF%BF%BE%EF%B7%90%F0%9F%BF%BF"),
        ] {
            assert_eq!(string(text), expected);
        }
    }
}
