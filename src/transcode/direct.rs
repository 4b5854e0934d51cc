//! JSON bytes + [`Plan`] -> Avro bytes, with no tape in between: for an event as senders write it.
//!
//! A value of another type, a timestamp in another form, a member that stands twice: all of that it leaves to the way over
//! the tape, which knows every case and says what is wrong. What it does take becomes the same record on both ways, but for
//! the order of `extras`; `tests/it/judgement.rs` holds them together.

use memchr::memmem;

use super::{
    END_OF_BLOCKS, NULL_BRANCH, VALUE_BRANCH, json::write_scalar, same, timestamp::read_exact, write_long,
    write_string, write_token,
};
use crate::schema::{Field, Kind, Mark, Marked, Plan};

/// The reused buffers of one thread.
#[derive(Default)]
pub struct Direct {
    /// Of each open record: where in the output each field stands.
    places: Vec<Place>,
    /// A record's fields, brought into the schema's order; a text without its escapes.
    spare: Vec<u8>,
    extras: Vec<u8>,
    out: Vec<u8>,
}

/// What became of a body.
#[derive(Debug)]
pub struct Encoded<'a, 'b> {
    pub value: &'b [u8],
    pub marked: Marked<Text<'a>>,
    /// How many members went to `extras`.
    pub extras: usize,
}

/// From where to where, or [`ABSENT`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u32, u32);

const ABSENT: Place = Place(0, 0);

/// What stands at a [`Mark`].
#[derive(Debug, Clone, Copy)]
pub enum Text<'a> {
    String(&'a str),
    /// A whole number's digits.
    Number(&'a str),
}

impl<'a> Text<'a> {
    pub fn string(self) -> Option<&'a str> {
        match self {
            Self::String(text) => Some(text),
            Self::Number(_) => None,
        }
    }

    /// What makes a key: a string that is not empty, or a number.
    pub fn key(self) -> Option<&'a str> {
        match self {
            Self::String(text) => Some(text).filter(|text| !text.is_empty()),
            Self::Number(digits) => Some(digits),
        }
    }
}

impl Direct {
    /// Encodes `body` by `plan`. `depth_max` is [`Parser::new`](crate::event::Parser::new)'s.
    ///
    /// `None` says nothing about the body, only that this way does not know it.
    pub fn encode<'a>(&mut self, body: &'a [u8], plan: &Plan, depth_max: usize) -> Option<Encoded<'a, '_>> {
        let Self { places, spare, extras, out } = self;
        places.clear();
        extras.clear();
        out.clear();
        let mut pass =
            Pass { rest: body, depth: depth_max, out, places, spare, extras, extras_count: 0, marked: Marked::NOTHING };
        pass.skip_space();
        pass.record(plan, &Path::Root)?;
        pass.skip_space();
        pass.write_extras();
        let (marked, extras, whole) = (pass.marked, pass.extras_count, pass.rest.is_empty());
        let is_event = Mark::IDENTITY.iter().all(|mark| marked.get(*mark).and_then(Text::key).is_some());
        (whole && is_event).then_some(Encoded { value: &self.out, marked, extras })
    }
}

struct Pass<'a, 'b> {
    /// What of the body is still to be read.
    rest: &'a [u8],
    /// How many more containers may open.
    depth: usize,
    out: &'b mut Vec<u8>,
    places: &'b mut Vec<Place>,
    spare: &'b mut Vec<u8>,
    extras: &'b mut Vec<u8>,
    extras_count: usize,
    marked: Marked<Text<'a>>,
}

impl<'a> Pass<'a, '_> {
    /// Writes an object as a record. While its members come in the schema's order each is written where it belongs; else
    /// they are brought into order when all are there.
    fn record(&mut self, plan: &Plan, path: &Path<'_, 'a>) -> Option<()> {
        let (base, start) = (self.places.len(), self.out.len());
        self.places.resize(base + plan.fields.len(), ABSENT);
        let (mut expected, mut in_order) = (0, true);
        let mut unknown = None;
        let mut more = self.open(b'{', b'}')?;
        while more {
            let position = match self.member(plan, expected)? {
                Member::Field(position) => position,
                Member::Unknown(name) => {
                    unknown.get_or_insert_with(Keys::default).add(name)?;
                    self.put_aside(&Path::Member(path, name))?;
                    more = self.next(b'}')?;
                    continue;
                }
            };
            let field = plan.fields.get(position)?;
            match position.checked_sub(expected) {
                Some(0) => {}
                Some(skipped) if in_order => self.nulls(skipped),
                _ => in_order = false,
            }
            let from = self.out.len() as u32;
            self.field(field, path)?;
            let to = self.out.len() as u32;
            let place = self.places.get_mut(base + position)?;
            if *place != ABSENT {
                return None;
            }
            *place = Place(from, to);
            expected = position + 1;
            more = self.next(b'}')?;
        }
        if in_order {
            self.nulls(plan.fields.len() - expected);
        } else {
            self.bring_into_order(base, start);
        }
        self.places.truncate(base);
        self.depth += 1;
        Some(())
    }

    /// For members that are not there; for an empty map of `extras` too.
    fn nulls(&mut self, count: usize) {
        const { assert!(NULL_BRANCH == END_OF_BLOCKS) };
        self.out.resize(self.out.len() + count, NULL_BRANCH);
    }

    fn bring_into_order(&mut self, base: usize, start: usize) {
        self.spare.clear();
        for Place(from, to) in self.places.iter().skip(base) {
            match self.out.get(*from as usize..*to as usize) {
                Some(field) if !field.is_empty() => self.spare.extend_from_slice(field),
                _ => self.spare.push(NULL_BRANCH),
            }
        }
        self.out.truncate(start);
        self.out.extend_from_slice(self.spare);
    }

    /// Reads a member's name and its colon.
    #[inline]
    fn member(&mut self, plan: &Plan, expected: usize) -> Option<Member<'a>> {
        match plan.fields.get(expected) {
            Some(field) if self.name(field.member.as_bytes()) => {
                self.skip_space();
                // Which no member's name leads to.
                Some(if matches!(field.kind, Kind::Extras) {
                    Member::Unknown(b"extras")
                } else {
                    Member::Field(expected)
                })
            }
            _ => {
                let name = self.plain_string()?;
                self.colon()?;
                Some(plan.find(str::from_utf8(name).ok()?).map_or(Member::Unknown(name), Member::Field))
            }
        }
    }

    /// Whether this name stands here, with its quotes and colon; if so it is read.
    #[inline]
    fn name(&mut self, member: &[u8]) -> bool {
        match self.rest.split_at_checked(member.len()) {
            Some((name, rest)) if same(name, member) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn field(&mut self, field: &Field, path: &Path<'_, 'a>) -> Option<()> {
        if self.literal(b"null") {
            self.out.push(NULL_BRANCH);
            return field.nullable.then_some(());
        }
        if field.nullable {
            self.out.push(VALUE_BRANCH);
        }
        match field.kind {
            _ if !field.marks.is_empty() => self.marked(field, path),
            // Most fields are one of these: no call for them.
            Kind::String => self.string(),
            Kind::TimestampMillis => self.timestamp(),
            _ => self.value(&field.kind, &Path::Field(path, field)),
        }
    }

    /// As [`Self::value`]; and what stands there is kept.
    fn marked(&mut self, field: &Field, path: &Path<'_, 'a>) -> Option<()> {
        let before = self.rest;
        let found = match field.kind {
            Kind::String | Kind::TimestampMillis => {
                // One with escapes is not what it says.
                let text = self.plain_string()?;
                self.rest = before;
                Text::String(str::from_utf8(text).ok()?)
            }
            Kind::Int | Kind::Long => {
                self.integer()?;
                let digits = before.get(..before.len() - self.rest.len())?;
                self.rest = before;
                Text::Number(str::from_utf8(digits).ok()?)
            }
            // No key.
            Kind::Boolean => return self.value(&field.kind, path),
            Kind::Float
            | Kind::Double
            | Kind::JsonText
            | Kind::Record(_)
            | Kind::Array(_)
            | Kind::Map(_)
            | Kind::Extras => return None,
        };
        self.marked.set(field.marks, found);
        self.value(&field.kind, path)
    }

    #[inline]
    fn value(&mut self, kind: &Kind, path: &Path<'_, 'a>) -> Option<()> {
        match kind {
            Kind::String => self.string()?,
            Kind::TimestampMillis => self.timestamp()?,
            Kind::Long => {
                let long = self.integer()?;
                write_long(self.out, long);
            }
            Kind::Int => {
                let int = self.integer().filter(|long| i32::try_from(*long).is_ok())?;
                write_long(self.out, int);
            }
            Kind::Double => {
                let double = self.double()?;
                self.out.extend_from_slice(&double.to_le_bytes());
            }
            Kind::Float => {
                let double = self.double().filter(|double| f64::from(*double as f32) == *double)?;
                self.out.extend_from_slice(&(double as f32).to_le_bytes());
            }
            Kind::Boolean => {
                let boolean = self.literal(b"true");
                if !boolean && !self.literal(b"false") {
                    return None;
                }
                self.out.push(u8::from(boolean));
            }
            Kind::Record(plan) => self.record(plan, path)?,
            Kind::Array(items) => self.array(items, path)?,
            Kind::Map(values) => self.map(values, path)?,
            Kind::JsonText | Kind::Extras => return None,
        }
        Some(())
    }

    fn array(&mut self, items: &Kind, path: &Path<'_, 'a>) -> Option<()> {
        let start = self.out.len();
        self.out.push(END_OF_BLOCKS);
        let mut count = 0;
        let mut more = self.open(b'[', b']')?;
        while more {
            self.value(items, &Path::Element(path, count))?;
            count += 1;
            more = self.next(b']')?;
        }
        self.end_block(start, count as i64);
        Some(())
    }

    fn map(&mut self, values: &Kind, path: &Path<'_, 'a>) -> Option<()> {
        let start = self.out.len();
        self.out.push(END_OF_BLOCKS);
        let mut keys = Keys::default();
        let mut count = 0;
        let mut more = self.open(b'{', b'}')?;
        while more {
            let key = self.plain_string()?;
            keys.add(key)?;
            self.colon()?;
            if !self.literal(b"null") {
                write_string(self.out, key);
                self.value(values, &Path::Member(path, key))?;
                count += 1;
            }
            more = self.next(b'}')?;
        }
        self.end_block(start, count);
        Some(())
    }

    /// At `start` stands one byte in place of the block's count; with no items it is the end already.
    fn end_block(&mut self, start: usize, count: i64) {
        if count > 0 {
            self.spare.clear();
            write_long(self.spare, count);
            match (self.out.get_mut(start), self.spare.as_slice()) {
                (Some(place), [count]) => *place = *count,
                _ => drop(self.out.splice(start..=start, self.spare.iter().copied())),
            }
            self.out.push(END_OF_BLOCKS);
        }
        self.depth += 1;
    }

    /// Puts the value that stands here into `extras`; null says no more than that it is not there.
    fn put_aside(&mut self, path: &Path<'_, 'a>) -> Option<()> {
        if self.literal(b"null") {
            return Some(());
        }
        self.spare.clear();
        path.write(self.spare);
        write_string(self.extras, self.spare);
        self.spare.clear();
        self.json_text()?;
        write_string(self.extras, self.spare);
        self.extras_count += 1;
        Some(())
    }

    /// Appends the text of the value that stands here to `spare`, as [`write_json`](super::write_json) would.
    fn json_text(&mut self) -> Option<()> {
        match self.rest.first()? {
            b'"' => {
                let text = self.plain_string()?;
                self.spare.push(b'"');
                self.spare.extend_from_slice(text);
                self.spare.push(b'"');
            }
            b'{' => {
                let mut keys = Keys::default();
                self.spare.push(b'{');
                let mut more = self.open(b'{', b'}')?;
                while more {
                    let key = self.plain_string()?;
                    keys.add(key)?;
                    self.colon()?;
                    self.spare.push(b'"');
                    self.spare.extend_from_slice(key);
                    self.spare.extend_from_slice(b"\":");
                    self.json_text()?;
                    more = self.next(b'}')?;
                    self.spare.extend_from_slice(if more { b"," } else { b"" });
                }
                self.depth += 1;
                self.spare.push(b'}');
            }
            b'[' => {
                self.spare.push(b'[');
                let mut more = self.open(b'[', b']')?;
                while more {
                    self.json_text()?;
                    more = self.next(b']')?;
                    self.spare.extend_from_slice(if more { b"," } else { b"" });
                }
                self.depth += 1;
                self.spare.push(b']');
            }
            b'-' | b'0'..=b'9' => {
                let before = self.rest;
                if let Some(long) = self.integer().filter(|_| self.rest.first() != Some(&b'.')) {
                    write_scalar(long, self.spare);
                } else {
                    self.rest = before;
                    let double = self.double()?;
                    write_scalar(double, self.spare);
                }
            }
            _ => {
                let literals: [&[u8]; 3] = [b"true", b"false", b"null"];
                let (literal, rest) = literals.iter().find_map(|it| Some((it, self.rest.strip_prefix(*it)?)))?;
                self.spare.extend_from_slice(literal);
                self.rest = rest;
            }
        }
        Some(())
    }

    /// The root's last field is there as an empty map.
    fn write_extras(&mut self) {
        if self.extras_count > 0 {
            self.out.pop();
            write_long(self.out, self.extras_count as i64);
            self.out.extend_from_slice(self.extras);
            self.out.push(END_OF_BLOCKS);
        }
    }

    #[inline]
    fn timestamp(&mut self) -> Option<()> {
        // In the one form that is exact no quote can stand.
        let (text, rest) = self.rest.split_first_chunk::<26>()?;
        let [b'"', text @ .., b'"'] = text else { return None };
        write_long(self.out, read_exact(text)?);
        self.rest = rest;
        Some(())
    }

    #[inline]
    fn string(&mut self) -> Option<()> {
        let before = self.rest;
        if let Some(text) = self.plain_string() {
            write_string(self.out, text);
            return Some(());
        }
        self.rest = before;
        self.unescape()
    }

    /// A string without escapes; UTF-8.
    #[inline]
    fn plain_string(&mut self) -> Option<&'a [u8]> {
        let [b'"', inside @ ..] = self.rest else { return None };
        let (text, [b'"', rest @ ..]) = plain(inside)? else { return None };
        self.rest = rest;
        Some(text)
    }

    /// Writes a string with escapes (RFC 8259, section 7).
    #[cold]
    fn unescape(&mut self) -> Option<()> {
        self.byte(b'"')?;
        self.spare.clear();
        loop {
            let (plain, rest) = plain(self.rest)?;
            self.spare.extend_from_slice(plain);
            self.rest = rest;
            if self.byte(b'"').is_some() {
                write_string(self.out, self.spare);
                return Some(());
            }
            self.byte(b'\\')?;
            let (escaped, rest) = self.rest.split_first()?;
            self.rest = rest;
            let char = match *escaped {
                b'"' | b'\\' | b'/' => char::from(*escaped),
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.code_point()?,
                _ => return None,
            };
            self.spare.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    fn code_point(&mut self) -> Option<char> {
        let first = self.four_digits()?;
        if !matches!(first, 0xD800..=0xDBFF) {
            return char::from_u32(first);
        }
        let second = if self.literal(b"\\u") { self.four_digits()? } else { return None };
        let low = second.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
        char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + low)
    }

    fn four_digits(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
    }

    /// A whole number of at most 18 digits; what follows it is looked at by who comes next.
    #[inline]
    fn integer(&mut self) -> Option<i64> {
        let negative = self.byte(b'-').is_some();
        let number = self.digits()?;
        // As a key it would be 0.
        (!negative || number != 0).then_some(if negative { -number } else { number })
    }

    #[inline]
    fn digits(&mut self) -> Option<i64> {
        let (mut number, mut digits) = (0, 0);
        while let [digit @ b'0'..=b'9', rest @ ..] = self.rest {
            // A 0 in front of others, or one too many.
            if digits == 18 || digits > 0 && number == 0 {
                return None;
            }
            number = number * 10 + i64::from(digit - b'0');
            digits += 1;
            self.rest = rest;
        }
        (digits > 0).then_some(number)
    }

    /// A number that the double gives back: whole ones of at most 15 digits, and those with a fraction.
    fn double(&mut self) -> Option<f64> {
        let before = self.rest;
        let negative = self.byte(b'-').is_some();
        let whole = self.digits()?;
        if self.byte(b'.').is_none() {
            let whole = Some(whole).filter(|whole| *whole < 1_000_000_000_000_000 && (!negative || *whole != 0))?;
            return Some(if negative { -(whole as f64) } else { whole as f64 });
        }
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = self.rest.get(digits..).filter(|_| digits > 0)?;
        let text = before.get(..before.len() - self.rest.len())?;
        str::from_utf8(text).ok()?.parse().ok()
    }

    /// Opens a container: whether something stands in it.
    #[inline]
    fn open(&mut self, bracket: u8, end: u8) -> Option<bool> {
        self.depth = self.depth.checked_sub(1)?;
        self.byte(bracket)?;
        self.skip_space();
        Some(self.byte(end).is_none())
    }

    #[inline]
    fn colon(&mut self) -> Option<()> {
        self.skip_space();
        self.byte(b':')?;
        self.skip_space();
        Some(())
    }

    /// Behind an item of a container: whether another follows.
    #[inline]
    fn next(&mut self, end: u8) -> Option<bool> {
        self.skip_space();
        if self.byte(b',').is_some() {
            self.skip_space();
            return Some(true);
        }
        self.byte(end).map(|()| false)
    }

    #[inline]
    fn byte(&mut self, expected: u8) -> Option<()> {
        match self.rest {
            [byte, rest @ ..] if *byte == expected => {
                self.rest = rest;
                Some(())
            }
            _ => None,
        }
    }

    /// Whether `text` stands here; if so it is read.
    #[inline]
    fn literal<const N: usize>(&mut self, text: &[u8; N]) -> bool {
        match self.rest.split_first_chunk::<N>() {
            Some((found, rest)) if found == text => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn skip_space(&mut self) {
        if self.rest.first().is_some_and(|byte| *byte <= b' ') {
            self.skip_some_space();
        }
    }

    fn skip_some_space(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }
}

enum Member<'a> {
    /// The field at this position.
    Field(usize),
    /// The schema does not name it.
    Unknown(&'a [u8]),
}

/// The way from the root to a value.
enum Path<'p, 'a> {
    Root,
    Field(&'p Path<'p, 'a>, &'p Field),
    Member(&'p Path<'p, 'a>, &'a [u8]),
    Element(&'p Path<'p, 'a>, usize),
}

impl Path<'_, '_> {
    /// Appends it as a JSON pointer (RFC 6901).
    fn write(&self, pointer: &mut Vec<u8>) {
        match self {
            Self::Root => {}
            Self::Field(before, field) => {
                before.write(pointer);
                write_token(field.name().as_bytes(), pointer);
            }
            Self::Member(before, name) => {
                before.write(pointer);
                write_token(name, pointer);
            }
            Self::Element(before, index) => {
                before.write(pointer);
                write_token(index.to_string().as_bytes(), pointer);
            }
        }
    }
}

/// The names of an object's members, of which none may stand twice.
#[derive(Default)]
struct Keys<'a> {
    known: [&'a [u8]; Keys::MAX],
    count: usize,
}

impl<'a> Keys<'a> {
    /// Each is compared with all before it: no more than a few.
    const MAX: usize = 16;

    fn add(&mut self, key: &'a [u8]) -> Option<()> {
        if self.known.iter().take(self.count).any(|known| *known == key) {
            return None;
        }
        *self.known.get_mut(self.count)? = key;
        self.count += 1;
        Some(())
    }
}

/// Takes the bytes at the start of `text` that stand in a JSON string as they are: no quote, escape or control character,
/// and UTF-8. Eight at a time.
#[inline]
fn plain(text: &[u8]) -> Option<(&[u8], &[u8])> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = ONES << 7;
    // The lowest high bit that is set marks the first byte below `limit`; those above it may be wrong.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH_BITS;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, _) = text.as_chunks::<8>();
    let (mut length, mut not_ascii) = (0, 0);
    for word in words {
        let word = u64::from_le_bytes(*word);
        not_ascii |= word & HIGH_BITS;
        let ends = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
        if ends != 0 {
            length += ends.trailing_zeros() as usize / 8;
            return split_plain(text, length, not_ascii != 0);
        }
        length += 8;
    }
    let rest = text.get(length..)?;
    let ends = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    length += rest.iter().position(ends).unwrap_or(rest.len());
    split_plain(text, length, true)
}

#[inline]
fn split_plain(text: &[u8], length: usize, not_ascii: bool) -> Option<(&[u8], &[u8])> {
    let (plain, rest) = text.split_at_checked(length)?;
    if not_ascii && str::from_utf8(plain).is_err() { None } else { Some((plain, rest)) }
}

/// Finds what is most likely an event's `name`, without reading the document.
pub struct NamePeek(memmem::Finder<'static>);

impl Default for NamePeek {
    fn default() -> Self {
        Self(memmem::Finder::new(r#""name""#))
    }
}

impl NamePeek {
    /// The string behind the first `"name":`.
    pub fn peek<'a>(&self, body: &'a [u8]) -> Option<&'a str> {
        let rest = body.get(self.0.find(body)? + self.0.needle().len()..)?;
        let value = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
        str::from_utf8(plain(value)?.0).ok()
    }
}
