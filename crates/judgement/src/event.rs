//! Bytes -> `Event`: never a panic, and the same verdict as serde_json with the rules of ARCHITECTURE.md on top.

use std::{cell::Cell, collections::HashSet, fmt};

use causeway::{
    event::{Event, Parser, Unreadable},
    transcode::write_json,
};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use crate::{parse, same};

const DEPTH_MAX: usize = 128;

pub fn run(body: &[u8]) {
    let verdict = verdict(body);
    Parser::new(DEPTH_MAX).read(body, |event| match (event.and_then(Event::checked), &verdict) {
        (Ok(event), Verdict::Event(document)) => says(&event, document),
        (Err(why), Verdict::DeadLetter(expected)) => {
            assert!(expected.covers(&why), "{why:?} instead of {expected:?}");
            shows_no_payload(&why, body);
        }
        (Ok(_), verdict) => panic!("an event, against {verdict:?}"),
        (Err(why), verdict) => panic!("{why:?}, against {verdict:?}"),
    });
}

fn says(event: &Event<'_>, document: &Json) {
    let identity = [event.name, event.event_id, event.event_type, event.api_version];
    assert_eq!(identity.map(Some), IDENTITY.map(|member| document[member].as_str()));
    let mut text = Vec::new();
    write_json(event.tape(), 0, &mut text);
    let written = parse(&text).expect("what is written is JSON");
    assert!(same(&written, document), "the tape has another document\n{written}\n{document}");
}

fn shows_no_payload(why: &Unreadable, body: &[u8]) {
    // Its words are `&'static str`: they cannot be of the body.
    if let Unreadable::Json { at: Some(at), .. } | Unreadable::NotUtf8 { at } = why {
        assert!(*at <= body.len(), "byte {at} of {}", body.len());
    }
}

const IDENTITY: [&str; 4] = ["name", "event_id", "event_type", "api_version"];

/// What the tables of ARCHITECTURE.md say of a body.
#[derive(Debug)]
enum Verdict {
    Event(Json),
    DeadLetter(Reason),
}

#[derive(Debug)]
enum Reason {
    Exactly(Unreadable),
    /// An integer beyond u64: the parser's word for it.
    Parser,
    /// No JSON at all: which fault is met first is the parser's affair.
    Any,
}

impl Reason {
    fn covers(&self, why: &Unreadable) -> bool {
        match self {
            Self::Exactly(expected) => why == expected,
            Self::Parser => matches!(why, Unreadable::Json { .. }),
            Self::Any => {
                matches!(why, Unreadable::Json { .. } | Unreadable::NotUtf8 { .. } | Unreadable::TooDeep { .. })
            }
        }
    }
}

fn verdict(body: &[u8]) -> Verdict {
    let exactly = |why| Verdict::DeadLetter(Reason::Exactly(why));
    if body.is_empty() {
        return exactly(Unreadable::Empty);
    }
    let text = Text::scan(body);
    // Before serde_json sees it: reading it would take as much stack. It is too deep, or no JSON.
    if text.depth > DEPTH_MAX {
        return Verdict::DeadLetter(Reason::Any);
    }
    let duplicate = Cell::new(false);
    let Some(document) = read(body, &duplicate) else { return Verdict::DeadLetter(Reason::Any) };
    if text.beyond_u64 {
        return Verdict::DeadLetter(Reason::Parser);
    }
    if !document.is_object() {
        return exactly(Unreadable::NotAnObject);
    }
    if duplicate.get() {
        return exactly(Unreadable::Duplicate);
    }
    match IDENTITY.into_iter().find(|member| document[member].as_str().unwrap_or_default().is_empty()) {
        Some(member) => exactly(Unreadable::Identity(member)),
        None => Verdict::Event(document),
    }
}

/// The document as serde_json reads it; `duplicate` is set when an object has a member twice.
fn read(body: &[u8], duplicate: &Cell<bool>) -> Option<Json> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    reader.disable_recursion_limit();
    let document = Strict(duplicate).deserialize(&mut reader).ok()?;
    reader.end().ok().map(|()| document)
}

/// What serde_json does not say of a text: right where the text is JSON.
struct Text {
    depth: usize,
    beyond_u64: bool,
}

impl Text {
    fn scan(text: &[u8]) -> Self {
        let mut found = Self { depth: 0, beyond_u64: false };
        let (mut depth, mut at) = (0_usize, 0);
        while let Some(byte) = text.get(at) {
            match byte {
                b'"' => at += string_length(&text[at..]),
                b'[' | b'{' => {
                    depth += 1;
                    found.depth = found.depth.max(depth);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b'-' | b'0'..=b'9' => {
                    let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                    let number: Vec<u8> = text[at..].iter().take_while(is_part).copied().collect();
                    found.beyond_u64 |= is_beyond_u64(&number);
                    at += number.len() - 1;
                }
                _ => {}
            }
            at += 1;
        }
        found
    }
}

/// From a quotation mark to before the next that no backslash escapes.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn is_beyond_u64(number: &[u8]) -> bool {
    let whole = number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
    let value = String::from_utf8_lossy(number).parse::<i128>();
    whole && !value.is_ok_and(|value| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value))
}

/// Builds a [`Json`] and notices members that stand twice.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a Cell<bool>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Json, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Json;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, boolean: bool) -> Result<Json, E> {
        Ok(boolean.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(self)? {
            array.push(element);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let (mut object, mut seen) = (serde_json::Map::new(), HashSet::new());
        while let Some(key) = members.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                self.0.set(true);
            }
            object.insert(key, members.next_value_seed(self)?);
        }
        Ok(object.into())
    }
}
