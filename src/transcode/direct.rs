//! The direct path: JSON bytes + [`Plan`] -> Avro bytes, without a tape, for an event of the usual form.
//!
//! The direct path handles well-formed events only. Anything unusual (another type, another form of timestamp, a
//! duplicate member) falls back to the tape, which alone names a fault. Both ways make the same record, but for the
//! order of `extras`; `crates/judgement` compares them.

mod aside;
mod cursor;

use memchr::memmem;

use self::{
    aside::{Keys, Path},
    cursor::{Cursor, plain},
};
use super::{END_OF_BLOCKS, NULL_BRANCH, VALUE_BRANCH, timestamp::read_exact, write_long, write_string};
use crate::schema::{Field, Kind, Mark, Marked, Plan};

/// The buffers of one body's translation; reused from body to body.
#[derive(Default)]
pub struct Direct {
    /// For each open record: the bytes of each field in the output.
    places: Vec<Place>,
    /// Scratch space: a record's fields in the schema's order, or a text without its escapes.
    spare: Vec<u8>,
    extras: Vec<u8>,
    out: Vec<u8>,
}

/// A body encoded on the direct path.
#[derive(Debug)]
pub struct Encoded<'a, 'b> {
    /// The Avro value, without prefix.
    pub value: &'b [u8],
    /// The texts for the record's key and headers.
    pub marked: Marked<Text<'a>>,
    /// The number of members that went to `extras`.
    pub extras: usize,
}

/// A range of the output, from a first byte to an end, or [`ABSENT`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u32, u32);

const ABSENT: Place = Place(0, 0);

/// The deepest nesting of a value for `extras`, as each level takes room on the stack.
const ASIDE_DEPTH_MAX: usize = 32;

/// The most bytes of `extras` here: each entry has a whole pointer, so a small body could make many.
const EXTRAS_BYTES_MAX: usize = 64 * 1024;

/// The value of a marked field.
#[derive(Debug, Clone, Copy)]
pub enum Text<'a> {
    /// A string, without quotes or escapes.
    String(&'a str),
    /// The digits of a whole number.
    Number(&'a str),
}

impl<'a> Text<'a> {
    /// The string; `None` for a number.
    pub fn string(self) -> Option<&'a str> {
        match self {
            Self::String(text) => Some(text),
            Self::Number(_) => None,
        }
    }

    /// The text as a record's key; `None` for an empty string, which makes no key.
    pub fn key(self) -> Option<&'a str> {
        match self {
            Self::String(text) => Some(text).filter(|text| !text.is_empty()),
            Self::Number(digits) => Some(digits),
        }
    }
}

impl Direct {
    /// Encodes `body` by `plan`. `depth_max` as in [`Parser::new`](crate::event::Parser::new).
    ///
    /// `None` says only that the direct path does not handle this body, and nothing about the body itself.
    pub fn encode<'a>(&mut self, body: &'a [u8], plan: &Plan, depth_max: usize) -> Option<Encoded<'a, '_>> {
        let Self { places, spare, extras, out } = self;
        places.clear();
        extras.clear();
        out.clear();
        let mut pass = Pass {
            input: Cursor { rest: body, depth: depth_max },
            out,
            places,
            spare,
            extras,
            extras_count: 0,
            marked: Marked::NOTHING,
        };
        pass.input.skip_space();
        pass.record(plan, &Path::Root)?;
        pass.input.skip_space();
        pass.write_extras();
        let (marked, extras, whole) = (pass.marked, pass.extras_count, pass.input.rest.is_empty());
        let is_event = Mark::IDENTITY.iter().all(|mark| marked.get(*mark).and_then(Text::key).is_some());
        (whole && is_event).then_some(Encoded { value: &self.out, marked, extras })
    }
}

struct Pass<'a, 'b> {
    input: Cursor<'a>,
    out: &'b mut Vec<u8>,
    places: &'b mut Vec<Place>,
    spare: &'b mut Vec<u8>,
    extras: &'b mut Vec<u8>,
    extras_count: usize,
    marked: Marked<Text<'a>>,
}

impl<'a> Pass<'a, '_> {
    /// Writes an object as a record. Members that come out of the schema's order are sorted at the end.
    fn record(&mut self, plan: &Plan, path: &Path<'_, 'a>) -> Option<()> {
        let (base, start) = (self.places.len(), self.out.len());
        self.places.resize(base + plan.fields.len(), ABSENT);
        let (mut expected, mut in_order) = (0, true);
        let mut unknown = None;
        let mut more = self.input.open(b'{', b'}')?;
        while more {
            let position = match self.member(plan, expected)? {
                Member::Field(position) => position,
                Member::Unknown(name) => {
                    unknown.get_or_insert_with(Keys::default).add(name)?;
                    self.put_aside(&Path::Member(path, name))?;
                    more = self.input.next(b'}')?;
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
            more = self.input.next(b'}')?;
        }
        if in_order {
            self.nulls(plan.fields.len() - expected);
        } else {
            self.bring_into_order(base, start);
        }
        self.places.truncate(base);
        Some(())
    }

    /// Writes `count` nulls for absent members; for the field `extras` the same byte is an empty map.
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
            Some(field) if self.input.name(field.member.as_bytes()) => {
                self.input.skip_space();
                // No member's name leads to the field `extras`.
                Some(if matches!(field.kind, Kind::Extras) {
                    Member::Unknown(b"extras")
                } else {
                    Member::Field(expected)
                })
            }
            _ => {
                let name = self.input.plain_string()?;
                self.input.colon()?;
                Some(plan.find(str::from_utf8(name).ok()?).map_or(Member::Unknown(name), Member::Field))
            }
        }
    }

    #[inline]
    fn field(&mut self, field: &Field, path: &Path<'_, 'a>) -> Option<()> {
        if self.input.literal(b"null") {
            self.out.push(NULL_BRANCH);
            return field.nullable.then_some(());
        }
        if field.nullable {
            self.out.push(VALUE_BRANCH);
        }
        match field.kind {
            _ if !field.marks.is_empty() => self.marked(field, path),
            // Most fields are of these two kinds: writing one here saves a call.
            Kind::String => self.string(),
            Kind::TimestampMillis => self.timestamp(),
            _ => self.value(&field.kind, &Path::Field(path, field)),
        }
    }

    /// Writes the value as [`Self::value`] does, and keeps its text for the mark.
    fn marked(&mut self, field: &Field, path: &Path<'_, 'a>) -> Option<()> {
        let before = self.input.rest;
        let found = match field.kind {
            Kind::String => {
                // A string with escapes differs from its raw bytes, so leave it to the tape.
                let text = self.input.plain_string()?;
                write_string(self.out, text);
                Text::String(str::from_utf8(text).ok()?)
            }
            Kind::TimestampMillis | Kind::Int | Kind::Long => {
                self.value(&field.kind, path)?;
                let read = before.get(..before.len() - self.input.rest.len())?;
                match read {
                    [b'"', text @ .., b'"'] => Text::String(str::from_utf8(text).ok()?),
                    digits => Text::Number(str::from_utf8(digits).ok()?),
                }
            }
            // A boolean makes no key.
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
        Some(())
    }

    #[inline]
    fn value(&mut self, kind: &Kind, path: &Path<'_, 'a>) -> Option<()> {
        match kind {
            Kind::String => self.string()?,
            Kind::TimestampMillis => self.timestamp()?,
            Kind::Long => {
                let long = self.input.integer()?;
                write_long(self.out, long);
            }
            Kind::Int => {
                let int = self.input.integer().filter(|long| i32::try_from(*long).is_ok())?;
                write_long(self.out, int);
            }
            Kind::Double => {
                let double = self.input.double()?;
                self.out.extend_from_slice(&double.to_le_bytes());
            }
            Kind::Float => {
                let double = self.input.double().filter(|double| f64::from(*double as f32) == *double)?;
                self.out.extend_from_slice(&(double as f32).to_le_bytes());
            }
            Kind::Boolean => {
                let boolean = self.input.literal(b"true");
                if !boolean && !self.input.literal(b"false") {
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
        let mut more = self.input.open(b'[', b']')?;
        while more {
            self.value(items, &Path::Element(path, count))?;
            count += 1;
            more = self.input.next(b']')?;
        }
        self.end_block(start, count as i64);
        Some(())
    }

    fn map(&mut self, values: &Kind, path: &Path<'_, 'a>) -> Option<()> {
        let start = self.out.len();
        self.out.push(END_OF_BLOCKS);
        let mut keys = Keys::default();
        let mut count = 0;
        let mut more = self.input.open(b'{', b'}')?;
        while more {
            let key = self.input.plain_string()?;
            keys.add(key)?;
            self.input.colon()?;
            if !self.input.literal(b"null") {
                write_string(self.out, key);
                self.value(values, &Path::Member(path, key))?;
                count += 1;
            }
            more = self.input.next(b'}')?;
        }
        self.end_block(start, count);
        Some(())
    }

    /// Writes a block's count in place of the byte at `start`; with no items that byte already is the blocks' end.
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
    }

    /// Moves the value at the cursor to `extras`; a null member is the same as an absent one.
    fn put_aside(&mut self, path: &Path<'_, 'a>) -> Option<()> {
        if self.input.literal(b"null") {
            return Some(());
        }
        if self.extras.len() > EXTRAS_BYTES_MAX {
            return None;
        }
        self.spare.clear();
        path.write(self.spare);
        write_string(self.extras, self.spare);
        self.spare.clear();
        let depth = self.input.depth;
        self.input.depth = depth.min(ASIDE_DEPTH_MAX);
        self.input.copy_json(self.spare)?;
        self.input.depth = depth;
        write_string(self.extras, self.spare);
        self.extras_count += 1;
        Some(())
    }

    /// Replaces the empty map that stands for the root's last field.
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
        // The one exact form has a fixed length, and no place where a quote could stand.
        let (text, rest) = self.input.rest.split_first_chunk::<26>()?;
        let [b'"', text @ .., b'"'] = text else { return None };
        write_long(self.out, read_exact(text)?);
        self.input.rest = rest;
        Some(())
    }

    #[inline]
    fn string(&mut self) -> Option<()> {
        let before = self.input.rest;
        if let Some(text) = self.input.plain_string() {
            write_string(self.out, text);
            return Some(());
        }
        self.input.rest = before;
        self.spare.clear();
        self.input.unescape(self.spare)?;
        write_string(self.out, self.spare);
        Some(())
    }
}

enum Member<'a> {
    /// The field at this position.
    Field(usize),
    /// A member that the schema does not name.
    Unknown(&'a [u8]),
}

/// Finds the probable `name` of an event without parsing the document.
pub struct NamePeek(memmem::Finder<'static>);

impl Default for NamePeek {
    fn default() -> Self {
        Self(memmem::Finder::new(r#""name""#))
    }
}

impl NamePeek {
    /// The string after the first `"name":`.
    pub fn peek<'a>(&self, body: &'a [u8]) -> Option<&'a str> {
        let rest = body.get(self.0.find(body)? + self.0.needle().len()..)?;
        let value = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
        str::from_utf8(plain(value)?.0).ok()
    }
}
