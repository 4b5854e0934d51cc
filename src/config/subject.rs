//! `subject:` names: a distinguished name as RFC 4514 writes it, and as
//! `openssl x509 -subject -nameopt RFC2253` prints it.

use std::{fmt, str::Chars};

use super::fault::Wrong;

/// A distinguished name, parsed, together with its text in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    text: String,
    /// The relative distinguished names, the most specific first; each is a set of attributes.
    pub parts: Vec<Vec<Attribute>>,
}

/// An attribute of a distinguished name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The type's OID, dotted.
    pub oid: String,
    /// The value, without RFC 4514's escapes.
    pub value: AttributeValue,
}

/// The value of an attribute, in one of RFC 4514's two notations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// Text, as UTF-8.
    Text(Vec<u8>),
    /// The DER of the value, written in hexadecimal after a `#`.
    Der(Vec<u8>),
}

/// The types that have a short name: those of RFC 4514 (section 3), and others that OpenSSL prints.
const TYPES: [(&str, &str); 26] = [
    ("CN", "2.5.4.3"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("C", "2.5.4.6"),
    ("street", "2.5.4.9"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
    ("SN", "2.5.4.4"),
    ("GN", "2.5.4.42"),
    ("serialNumber", "2.5.4.5"),
    ("title", "2.5.4.12"),
    ("businessCategory", "2.5.4.15"),
    ("postalCode", "2.5.4.17"),
    ("name", "2.5.4.41"),
    ("initials", "2.5.4.43"),
    ("generationQualifier", "2.5.4.44"),
    ("dnQualifier", "2.5.4.46"),
    ("pseudonym", "2.5.4.65"),
    ("organizationIdentifier", "2.5.4.97"),
    ("unstructuredName", "1.2.840.113549.1.9.2"),
    ("jurisdictionL", "1.3.6.1.4.1.311.60.2.1.1"),
    ("jurisdictionST", "1.3.6.1.4.1.311.60.2.1.2"),
    ("jurisdictionC", "1.3.6.1.4.1.311.60.2.1.3"),
];

/// The short name of an attribute type, by its dotted OID.
pub fn short_name(oid: &str) -> Option<&'static str> {
    TYPES.iter().find(|(_, dotted)| *dotted == oid).map(|(name, _)| *name)
}

impl Subject {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut parts = Vec::new();
        let mut part = Vec::new();
        let mut rest = text;
        loop {
            let (kind, after) = rest.split_once('=').ok_or_else(|| wrong(text, "has a part without a `=`"))?;
            let Some(oid) = oid(kind.trim()) else {
                return Err(wrong(text, &format!("has {:?}, a type that is not known by this name", kind.trim())));
            };
            let mut chars = after.chars();
            let (value, separator) = value(&mut chars)
                .ok_or_else(|| wrong(text, &format!("has a value that cannot be read, after {kind}=")))?;
            part.push(Attribute { oid, value });
            if separator != Some('+') {
                parts.push(std::mem::take(&mut part));
            }
            if separator.is_none() {
                return Ok(Self { text: text.to_owned(), parts });
            }
            rest = chars.as_str();
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

fn wrong(text: &str, what: &str) -> Wrong {
    let known: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
    let remedy = format!(
        "write it as `openssl x509 -noout -subject -nameopt RFC2253` prints it; other types than {} by their dotted OID",
        known.join(", ")
    );
    Wrong::new(format!("holds \"subject:{text}\", which {what}"), remedy)
}

fn oid(kind: &str) -> Option<String> {
    let named = TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind)).map(|(_, oid)| (*oid).to_owned());
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    named.or_else(|| (kind.contains('.') && kind.split('.').all(number)).then(|| kind.to_owned()))
}

/// Reads one value, resolves the escapes of RFC 4514 (section 2.4), and returns the separator behind it too.
fn value(chars: &mut Chars<'_>) -> Option<(AttributeValue, Option<char>)> {
    let mut bytes = Vec::new();
    // Spaces around a value belong to it only if they are escaped.
    let mut end = 0;
    let mut is_der = false;
    let mut separator = None;
    while let Some(c) = chars.next() {
        match c {
            ',' | '+' => {
                separator = Some(c);
                break;
            }
            ' ' if bytes.is_empty() => continue,
            '#' if bytes.is_empty() && !is_der => {
                is_der = true;
                continue;
            }
            '\\' => bytes.extend(unescaped(chars)?),
            c => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
        if c != ' ' {
            end = bytes.len();
        }
    }
    bytes.truncate(end);
    let value = if is_der { AttributeValue::Der(hex(&bytes)?) } else { AttributeValue::Text(bytes) };
    Some((value, separator))
}

/// Reads what follows a backslash: two hexadecimal digits for a byte, or the character itself.
fn unescaped(chars: &mut Chars<'_>) -> Option<Vec<u8>> {
    let first = chars.next()?;
    if first.is_ascii_hexdigit() {
        return hex(&[u8::try_from(first).ok()?, u8::try_from(chars.next()?).ok()?]);
    }
    Some(first.to_string().into_bytes())
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The attributes of a subject in one line, with `+` and `,` between them.
    fn read(text: &str) -> String {
        let parts = Subject::parse(text).map_err(|wrong| wrong.what).unwrap().parts;
        let shown = |attribute: &Attribute| match &attribute.value {
            AttributeValue::Text(text) => format!("{}={}", attribute.oid, String::from_utf8_lossy(text)),
            AttributeValue::Der(der) => format!("{}={der:?}", attribute.oid),
        };
        let part = |part: &Vec<Attribute>| part.iter().map(shown).collect::<Vec<_>>().join(" + ");
        parts.iter().map(part).collect::<Vec<_>>().join(" , ")
    }

    #[test]
    fn a_name_is_read_by_rfc_4514() {
        for (text, expected) in [
            ("CN=a,o = b c , C=US", "2.5.4.3=a , 2.5.4.10=b c , 2.5.4.6=US"),
            ("CN=a+UID=b,O=c", "2.5.4.3=a + 0.9.2342.19200300.100.1.1=b , 2.5.4.10=c"),
            (r"O=a\, b\+c\\\=\#\20\ ", r"2.5.4.10=a, b+c\=#  "),
            (r"CN=Z\C3\BCrich", "2.5.4.3=Zürich"),
            ("street=1 = 2", "2.5.4.9=1 = 2"),
            (
                "emailAddress=a@b,SN=c,GN=d,serialNumber=e",
                "1.2.840.113549.1.9.1=a@b , 2.5.4.4=c , 2.5.4.42=d , 2.5.4.5=e",
            ),
            ("1.2.3=#0C0161", "1.2.3=[12, 1, 97]"),
            ("CN=", "2.5.4.3="),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (text, expected) in [
            ("CN", "without a `=`"),
            ("CN=a,", "without a `=`"),
            ("FOO=a", "has \"FOO\", a type that is not known"),
            ("CN=a,1..2=b", "has \"1..2\", a type"),
            (r"CN=a\", "cannot be read, after CN="),
            (r"CN=a\2", "cannot be read, after CN="),
            (r"CN=a\2x", "cannot be read, after CN="),
            ("CN=#0", "cannot be read, after CN="),
        ] {
            let wrong = Subject::parse(text).unwrap_err();
            assert!(wrong.what.contains(expected), "{text}: {}", wrong.what);
            assert!(wrong.remedy.contains("jurisdictionST, jurisdictionC by their dotted OID"), "{}", wrong.remedy);
        }
    }
}
