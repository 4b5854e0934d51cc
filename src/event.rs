//! Bytes -> [`Event`], or the reason why not: the simd-json tape and the identity.

mod reason;

use std::hash::BuildHasher;

use simd_json::{Buffers, ErrorType, Node, Tape};

/// A JSON object that has an event's identity.
///
/// It borrows from the [`Parser`] that read it. Every string is valid UTF-8. Every number is an `i64`, `u64` or `f64`;
/// simd-json refuses a number beyond f64. [`Event::checked`] verifies that no object has duplicate members; the
/// translation sees them by itself, as it visits every member, and makes no record of such an event.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    tape: &'a [Node<'a>],
    /// The member `api_version`.
    pub api_version: &'a str,
    /// The member `name`.
    pub name: &'a str,
    /// The member `event_id`.
    pub event_id: &'a str,
    /// The member `event_type`.
    pub event_type: &'a str,
}

/// Why a body is not an event. Such a body goes to the dead letters; a retry could not help.
///
/// `Display` shows nothing of the payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The body has no bytes.
    #[error("the body is empty")]
    Empty,
    /// The body is not UTF-8 at this byte.
    #[error("not UTF-8 at byte {at}")]
    NotUtf8 { at: usize },
    /// The body is not JSON; `at` is a position in bytes, where one is known.
    #[error("not JSON: {what}{}", .at.map(|at| format!(" at byte {at}")).unwrap_or_default())]
    Json { what: &'static str, at: Option<usize> },
    /// The body is JSON, but no object.
    #[error("not a JSON object")]
    NotAnObject,
    /// An object has two members of one name.
    #[error("an object has a duplicate member")]
    Duplicate,
    /// Containers are nested deeper than the limit.
    #[error("nested too deep: more than {max} levels")]
    TooDeep { max: usize },
    /// A member of the identity is absent, empty or no string.
    #[error("`{0}` is not a non-empty string")]
    Identity(&'static str),
}

/// The buffers of one body's reading; after warm-up, reading an event allocates nothing.
pub struct Parser {
    depth_max: usize,
    body: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Parser {
    /// A parser for documents of at most `depth_max` nested containers (`{}` has depth 1).
    pub fn new(depth_max: usize) -> Self {
        Self { depth_max, body: Vec::new(), buffers: Buffers::with_max_depth(4096, depth_max), tape: Tape(Vec::new()) }
    }

    /// Reads `body` and hands the event, or the reason why it is none, to `use_event`.
    ///
    /// simd-json rewrites its input even when it fails, so it gets a copy.
    pub fn read<T>(&mut self, body: &[u8], use_event: impl FnOnce(Result<Event<'_>, Unreadable>) -> T) -> T {
        self.body.clear();
        self.body.extend_from_slice(body);
        self.body.resize(body.len() + simd_json::INPUT_PADDING, 0);
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(&mut self.body, body.len(), &mut self.buffers, &mut tape);
        let event = match parsed {
            _ if body.is_empty() => Err(Unreadable::Empty),
            Ok(()) => identify(&tape.0),
            Err(error) if matches!(error.error(), ErrorType::DepthLimitExceeded) => {
                Err(Unreadable::TooDeep { max: self.depth_max })
            }
            Err(error) => Err(reason::reason(&error, body)),
        };
        let used = use_event(event);
        self.tape = tape.reset();
        used
    }
}

fn identify<'a>(tape: &'a [Node<'a>]) -> Result<Event<'a>, Unreadable> {
    if !matches!(tape.first(), Some(Node::Object { .. })) {
        return Err(Unreadable::NotAnObject);
    }
    let mut event = Event { tape, api_version: "", name: "", event_id: "", event_type: "" };
    for (key, at) in members(tape, 0) {
        let Some(Node::String(value)) = tape.get(at) else { continue };
        match key {
            "api_version" => event.api_version = value,
            "name" => event.name = value,
            "event_id" => event.event_id = value,
            "event_type" => event.event_type = value,
            _ => {}
        }
    }
    let required = [
        ("name", event.name),
        ("event_id", event.event_id),
        ("event_type", event.event_type),
        ("api_version", event.api_version),
    ];
    match required.iter().find(|(_, value)| value.is_empty()) {
        // With duplicate members we cannot tell whether one is missing, so report the duplicate instead.
        Some((member, _)) => event.checked().and(Err(Unreadable::Identity(member))),
        None => Ok(event),
    }
}

impl<'a> Event<'a> {
    /// Verifies that no object has duplicate members.
    ///
    /// # Errors
    /// [`Unreadable::Duplicate`].
    pub fn checked(self) -> Result<Self, Unreadable> {
        check(self.tape, 0, &mut Members::default()).map(|()| self)
    }

    /// The tape; node 0 is the document's object.
    pub fn tape(&self) -> &'a [Node<'a>] {
        self.tape
    }

    /// The tape index of the value at an RFC 6901 pointer, given as its tokens.
    pub fn find(&self, tokens: &[String]) -> Option<usize> {
        let mut at = 0;
        for token in tokens {
            at = match self.tape.get(at)? {
                Node::Object { .. } => members(self.tape, at).find(|(key, _)| key == token)?.1,
                Node::Array { .. } => elements(self.tape, at).nth(index(token)?)?,
                Node::String(_) | Node::Static(_) => return None,
            };
        }
        Some(at)
    }

    /// The string at a pointer; `None` where anything else stands.
    pub fn text(&self, tokens: &[String]) -> Option<&'a str> {
        match self.tape.get(self.find(tokens)?)? {
            Node::String(text) => Some(text),
            Node::Static(_) | Node::Object { .. } | Node::Array { .. } => None,
        }
    }
}

/// Reads an array index in RFC 6901's form: digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let canonical = token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
    canonical.then(|| token.parse().ok()).flatten()
}

/// Verifies that no object inside the value at `at` has duplicate members.
///
/// # Errors
/// [`Unreadable::Duplicate`].
pub fn check(tape: &[Node<'_>], at: usize, members: &mut Members) -> Result<(), Unreadable> {
    let mut nodes = (at..).zip(tape.iter().skip(at).take(span(tape, at)));
    if nodes.any(|(at, node)| matches!(node, Node::Object { .. }) && members.has_duplicate(tape, at)) {
        return Err(Unreadable::Duplicate);
    }
    Ok(())
}

/// The members of the object at `at`: each key with the tape index of its value.
#[inline]
pub fn members<'a>(tape: &'a [Node<'a>], at: usize) -> impl Iterator<Item = (&'a str, usize)> {
    let mut next = at + 1;
    let end = next + span(tape, at) - 1;
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        let Some(Node::String(key)) = tape.get(next) else { return None };
        let value = next + 1;
        next = value + span(tape, value);
        Some((*key, value))
    })
}

/// The tape indexes of the elements of the array at `at`.
#[inline]
pub fn elements<'a>(tape: &'a [Node<'a>], at: usize) -> impl Iterator<Item = usize> {
    let mut next = at + 1;
    let end = next + span(tape, at) - 1;
    std::iter::from_fn(move || {
        let value = next;
        next += span(tape, value);
        (value < end).then_some(value)
    })
}

/// The number of nodes that the value at `at` takes on the tape, itself included.
#[inline]
pub fn span(tape: &[Node<'_>], at: usize) -> usize {
    match tape.get(at) {
        Some(Node::Object { count, .. } | Node::Array { count, .. }) => count + 1,
        Some(Node::String(_) | Node::Static(_)) | None => 1,
    }
}

/// The set of one object's keys, reused for all objects. A slot counts only when its stamp is the number of the current
/// object, so that starting over costs nothing, however large the last object was.
#[derive(Default)]
pub struct Members {
    slots: Vec<(u32, u32)>,
    stamp: u32,
    hasher: foldhash::fast::RandomState,
}

impl Members {
    /// Whether the object at `at` has two members of one name.
    pub fn has_duplicate<'a>(&mut self, tape: &'a [Node<'a>], at: usize) -> bool {
        let len = match tape.get(at) {
            Some(Node::Object { len, .. }) if *len > 1 => *len,
            _ => return false,
        };
        if len <= 4 {
            return members(tape, at)
                .enumerate()
                .any(|(i, (key, _))| members(tape, at).take(i).any(|(earlier, _)| earlier == key));
        }
        let mask = (2 * len).next_power_of_two() - 1;
        if self.slots.len() <= mask {
            self.slots.resize(mask + 1, (0, 0));
        }
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.slots.fill((0, 0));
            self.stamp = 1;
        }
        members(tape, at).any(|(key, value)| self.insert(tape, key, value, mask))
    }

    /// Puts `key` into the set; true when it was already there.
    fn insert<'a>(&mut self, tape: &'a [Node<'a>], key: &str, value: usize, mask: usize) -> bool {
        let mut slot = self.hasher.hash_one(key) as usize & mask;
        while let Some((stamp, earlier)) = self.slots.get_mut(slot) {
            if *stamp != self.stamp {
                // An index fits into 32 bits, as simd-json takes no input of 4 GiB or more.
                (*stamp, *earlier) = (self.stamp, value as u32);
                return false;
            }
            if matches!(tape.get(*earlier as usize - 1), Some(Node::String(other)) if *other == key) {
                return true;
            }
            slot = (slot + 1) & mask;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<(), Unreadable> {
        Parser::new(8).read(body.as_bytes(), |event| event?.checked().map(drop))
    }

    fn event(members: &str) -> String {
        format!(r#"{{"api_version":"v1","name":"n","event_id":"e","event_type":"t"{members}}}"#)
    }

    #[test]
    fn what_is_an_event_and_what_is_not() {
        let nested = |depth: usize| event(&format!(r#","x":{}{}"#, "[".repeat(depth - 1), "]".repeat(depth - 1)));
        let many = (0..100).map(|i| format!(r#","m{i}":{i}"#)).collect::<String>();
        for (body, expected) in [
            (event(""), Ok(())),
            (event(&many), Ok(())),
            (nested(8), Ok(())),
            (nested(9), Err(Unreadable::TooDeep { max: 8 })),
            (nested(2000), Err(Unreadable::TooDeep { max: 8 })),
            (String::new(), Err(Unreadable::Empty)),
            ("[1]".into(), Err(Unreadable::NotAnObject)),
            ("7".into(), Err(Unreadable::NotAnObject)),
            (event(r#","name":"m""#), Err(Unreadable::Duplicate)),
            (event(r#","x":[{"a":1,"\u0061":2}]"#), Err(Unreadable::Duplicate)),
            (event(&format!(r#"{many},"m42":0"#)), Err(Unreadable::Duplicate)),
            (
                r#"{"api_version":"v1","name":"n","event_id":"","event_type":"t"}"#.into(),
                Err(Unreadable::Identity("event_id")),
            ),
            (
                r#"{"api_version":"v1","name":5,"event_id":"e","event_type":"t"}"#.into(),
                Err(Unreadable::Identity("name")),
            ),
        ] {
            assert_eq!(read(&body), expected, "{body}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place_and_without_the_payload() {
        for (body, expected) in [
            (&b"no event"[..], "not JSON: true, false or null is expected at byte 1"),
            (b"hello", "not JSON: a value is expected at byte 0"),
            (b" \n\x07", "not JSON: a value is expected at byte 2"),
            (b"  ", "not JSON: the end is missing at byte 2"),
            (b"{", "not JSON: the end is missing at byte 1"),
            (b"{\"a\":\"x", "not JSON: the end is missing at byte 7"),
            (b"nul", "not JSON: the end is missing at byte 3"),
            (b"{\"a\":tru}", "not JSON: true, false or null is expected at byte 8"),
            (b"{\"a\" 1}", "not JSON: a colon is expected at byte 5"),
            (b"{\"a\":1 2}", "not JSON: a comma or the object's end is expected at byte 7"),
            (b"{\n\"a\":[1\n2]}", "not JSON: a comma or the array's end is expected at byte 9"),
            (b"{1:2}", "not JSON: a member's name is expected at byte 1"),
            (b"{\"a\":1,}", "not JSON: a member's name is expected at byte 7"),
            (b"{} {}", "not JSON: something stands behind the document at byte 3"),
            (b"[01]", "not JSON: a number is malformed at byte 2"),
            (b"[\"\\x\"]", "not JSON: an escape is malformed at byte 3"),
            (b"[\"a\nb\"]", "not JSON: a control character stands in a string at byte 3"),
            (b"{\"a\":1e400}", "not JSON: a number is beyond 64 bits at byte 5"),
            (b"{\"a\":18446744073709551616}", "not JSON: a number is beyond 64 bits at byte 24"),
            (b"{\"a\":\"\\ud800\"}", "not JSON: an escape is no character"),
            (b"{\"a\":\"\xff\"}", "not UTF-8 at byte 6"),
        ] {
            let reason = Parser::new(8).read(body, |event| event.unwrap_err().to_string());
            assert_eq!(reason, expected, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_parser_forgets_the_document_before() {
        let mut parser = Parser::new(8);
        for _ in 0..3 {
            assert!(parser.read(event(r#","x":{"a":1,"b":2,"c":3,"d":4,"e":5}"#).as_bytes(), |event| event.is_ok()));
            assert!(parser.read(b"{", |event| event.is_err()));
        }
    }

    #[test]
    fn pointers_lead_to_values() {
        let tokens = |pointer: &str| pointer.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
        Parser::new(8).read(event(r#","data":{"a":[{"b":"x"},"y"],"n":7}"#).as_bytes(), |event| {
            let event = event.unwrap();
            assert_eq!(event.text(&tokens("/data/a/0/b")), Some("x"));
            assert_eq!(event.text(&tokens("/data/a/1")), Some("y"));
            assert_eq!(event.text(&tokens("/data/a/01")), None);
            assert_eq!(event.text(&tokens("/data/a/2")), None);
            assert_eq!(event.text(&tokens("/data/n")), None);
            assert!(event.find(&tokens("/data/n")).is_some());
            assert_eq!(event.find(&tokens("/data/n/m")), None);
        });
    }
}
