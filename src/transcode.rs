//! [`Event`] + [`Plan`] -> Avro bytes + `extras`, in one pass over the tape.
//!
//! `extras` takes each value that the schema does not name or could not restore exactly. Its key is the RFC 6901
//! pointer of the smallest such member.

mod binary;
mod direct;
mod json;
mod timestamp;

use simd_json::{Node, StaticNode};

use binary::{write_long, write_string};
pub use direct::{Direct, Encoded, NamePeek, Text};
pub use json::write_json;
pub use timestamp::{print_millis, read_rfc3339};

use crate::{
    event::{Event, Members, Unreadable, check, elements, members},
    schema::{Field, Kind, Plan},
};

/// The buffers of one body's translation; reused from body to body.
#[derive(Default)]
pub struct Transcoder {
    /// For each open record: the tape index of each field's value, or [`ABSENT`].
    places: Vec<usize>,
    /// The way from the root to the current container.
    path: Vec<Step>,
    extras: Vec<u8>,
    extras_count: usize,
    /// Once `extras` holds more bytes than this, nothing is added.
    extras_max: Option<usize>,
    json: Vec<u8>,
    /// The current object's members that the schema does not name.
    unknown: Vec<usize>,
    members: Members,
    /// Some object seems to have a duplicate member; [`Event::checked`] decides.
    ambiguous: bool,
}

/// Marks a field without a value: no member's value stands at 0, where the document itself does.
const ABSENT: usize = 0;

impl Transcoder {
    /// A transcoder for values of at most `bytes_max` bytes. A larger value is truncated, but stays over `bytes_max`,
    /// so that the caller still rejects it. Without this limit a small body could make gigabytes: each entry has a
    /// whole pointer.
    pub fn up_to(bytes_max: usize) -> Self {
        Self { extras_max: Some(bytes_max), ..Self::default() }
    }

    /// Appends the Avro encoding of `event` by `plan` to `out`, and returns the number of members that went to
    /// `extras`.
    ///
    /// # Errors
    /// [`Event::checked`]'s error; `out` holds nothing of use then.
    pub fn encode(&mut self, event: &Event<'_>, plan: &Plan, out: &mut Vec<u8>) -> Result<usize, Unreadable> {
        self.places.clear();
        self.path.clear();
        self.extras.clear();
        self.extras_count = 0;
        self.ambiguous = false;
        let mut pass = Pass { tape: event.tape(), out, buffers: self };
        pass.record(plan, 0);
        if self.ambiguous {
            event.checked()?;
        }
        Ok(self.extras_count)
    }
}

struct Pass<'t, 'b> {
    tape: &'t [Node<'t>],
    out: &'b mut Vec<u8>,
    buffers: &'b mut Transcoder,
}

#[derive(Clone, Copy)]
enum Step {
    /// A member of an object, by the tape index of its value; its key stands one before.
    Member(usize),
    /// An element of an array, by its index.
    Element(usize),
}

impl<'t> Pass<'t, '_> {
    /// Writes the object at `at` as a record. Members come in any order: first each is given to its field, then the
    /// fields are written in the schema's order, with null for each that is absent.
    fn record(&mut self, plan: &Plan, at: usize) {
        let Transcoder { places, unknown, members: seen, ambiguous, .. } = &mut *self.buffers;
        let base = places.len();
        places.resize(base + plan.fields.len(), ABSENT);
        unknown.clear();
        let of_fields = places.get_mut(base..).unwrap_or_default();
        let mut expected = 0;
        for (key, value) in members(self.tape, at) {
            // Senders mostly keep one order of members: compare with the next field before the look-up by name.
            let field = match plan.fields.get(expected) {
                Some(field) if same(field.name().as_bytes(), key.as_bytes()) && !matches!(field.kind, Kind::Extras) => {
                    expected
                }
                _ => plan.find(key).unwrap_or(usize::MAX),
            };
            match of_fields.get_mut(field) {
                Some(place) => {
                    *ambiguous |= *place != ABSENT;
                    *place = value;
                    expected = field + 1;
                }
                None => unknown.push(value),
            }
        }
        if !unknown.is_empty() {
            *ambiguous |= unknown.len() > 1 && seen.has_duplicate(self.tape, at);
            self.put_unknown_aside();
        }
        for (position, field) in plan.fields.iter().enumerate() {
            match self.buffers.places.get(base + position) {
                Some(&value) if value != ABSENT => self.field(field, value),
                _ if matches!(field.kind, Kind::Extras) => self.write_extras(),
                // Only the identity's fields are not nullable, and every event has those.
                _ => self.out.push(NULL_BRANCH),
            }
        }
        self.buffers.places.truncate(base);
    }

    fn put_unknown_aside(&mut self) {
        for position in 0..self.buffers.unknown.len() {
            match self.buffers.unknown.get(position) {
                // A null member is the same as an absent one.
                Some(&value) if !self.is_null(value) => self.put_aside(Step::Member(value), value),
                _ => {}
            }
        }
    }

    fn field(&mut self, field: &Field, value: usize) {
        let start = self.out.len();
        if field.nullable {
            self.out.push(VALUE_BRANCH);
        }
        // Most fields are strings: writing one here saves a call.
        if let (Kind::String, Some(Node::String(text))) = (&field.kind, self.tape.get(value)) {
            return write_string(self.out, text.as_bytes());
        }
        match self.value(&field.kind, value, Step::Member(value)) {
            Fit::Exact => {}
            Fit::Inexact => self.put_aside(Step::Member(value), value),
            Fit::Misfit => {
                self.out.truncate(start);
                self.out.push(NULL_BRANCH);
                if !self.is_null(value) {
                    self.put_aside(Step::Member(value), value);
                }
            }
        }
    }

    /// Writes the value at `at`; `step` leads to it. After a [`Fit::Misfit`] the caller removes the bytes written here.
    #[inline]
    fn value(&mut self, kind: &Kind, at: usize, step: Step) -> Fit {
        let Some(node) = self.tape.get(at).copied() else { return Fit::Misfit };
        match (kind, node) {
            (Kind::String, Node::String(text)) => write_string(self.out, text.as_bytes()),
            (Kind::TimestampMillis, Node::String(text)) => {
                let Some(read) = read_rfc3339(text) else { return Fit::Misfit };
                write_long(self.out, read.millis);
                if !read.exact {
                    return Fit::Inexact;
                }
            }
            (Kind::Long, Node::Static(number)) => match as_i64(number) {
                Some(long) => write_long(self.out, long),
                None => return Fit::Misfit,
            },
            (Kind::Int, Node::Static(number)) => match as_i64(number).filter(|long| i32::try_from(*long).is_ok()) {
                Some(int) => write_long(self.out, int),
                None => return Fit::Misfit,
            },
            (Kind::Double, Node::Static(number)) => match as_f64(number) {
                Some(double) => self.out.extend_from_slice(&double.to_le_bytes()),
                None => return Fit::Misfit,
            },
            (Kind::Float, Node::Static(number)) => {
                match as_f64(number).filter(|double| f64::from(*double as f32) == *double) {
                    Some(double) => self.out.extend_from_slice(&(double as f32).to_le_bytes()),
                    None => return Fit::Misfit,
                }
            }
            (Kind::Boolean, Node::Static(StaticNode::Bool(boolean))) => self.out.push(u8::from(boolean)),
            (Kind::JsonText, Node::Static(StaticNode::Null)) => return Fit::Misfit,
            (Kind::JsonText, _) => self.json_text(at),
            (Kind::Record(plan), Node::Object { .. }) => self.within(step, |pass| pass.record(plan, at)),
            (Kind::Array(items), Node::Array { len, .. }) => {
                return self.within(step, |pass| pass.array(items, at, len));
            }
            (Kind::Map(values), Node::Object { .. }) => self.within(step, |pass| pass.map(values, at)),
            (
                Kind::String
                | Kind::TimestampMillis
                | Kind::Long
                | Kind::Int
                | Kind::Double
                | Kind::Float
                | Kind::Boolean
                | Kind::Record(_)
                | Kind::Array(_)
                | Kind::Map(_)
                | Kind::Extras,
                _,
            ) => return Fit::Misfit,
        }
        Fit::Exact
    }

    fn within<T>(&mut self, step: Step, write: impl FnOnce(&mut Self) -> T) -> T {
        self.buffers.path.push(step);
        let written = write(self);
        self.buffers.path.pop();
        written
    }

    /// An element that is a record can go to `extras` alone. In any other array one misfit sends the whole array there.
    fn array(&mut self, items: &Kind, at: usize, len: usize) -> Fit {
        let aside = (self.buffers.extras.len(), self.buffers.extras_count);
        let mut fit = Fit::Exact;
        if len > 0 {
            write_long(self.out, len as i64);
        }
        for (index, element) in elements(self.tape, at).enumerate() {
            match (self.value(items, element, Step::Element(index)), items) {
                (Fit::Exact, _) => {}
                (Fit::Inexact, _) => fit = Fit::Inexact,
                (Fit::Misfit, Kind::Record(plan)) => {
                    // A record of nulls keeps the place of an element that only `extras` can restore.
                    self.out.resize(self.out.len() + plan.fields.len(), NULL_BRANCH);
                    self.put_aside(Step::Element(index), element);
                }
                (Fit::Misfit, _) => {
                    self.buffers.extras.truncate(aside.0);
                    self.buffers.extras_count = aside.1;
                    return Fit::Misfit;
                }
            }
        }
        self.out.push(END_OF_BLOCKS);
        fit
    }

    fn map(&mut self, values: &Kind, at: usize) {
        self.buffers.ambiguous |= self.buffers.members.has_duplicate(self.tape, at);
        let start = self.out.len();
        let mut count = 0;
        for (key, value) in members(self.tape, at) {
            if self.is_null(value) {
                continue;
            }
            let entry = self.out.len();
            write_string(self.out, key.as_bytes());
            match self.value(values, value, Step::Member(value)) {
                Fit::Exact => count += 1,
                Fit::Inexact => {
                    count += 1;
                    self.put_aside(Step::Member(value), value);
                }
                Fit::Misfit => {
                    self.out.truncate(entry);
                    self.put_aside(Step::Member(value), value);
                }
            }
        }
        if count > 0 {
            // The count goes before the entries, but is known only after them.
            let json = &mut self.buffers.json;
            json.clear();
            write_long(json, count);
            self.out.splice(start..start, json.iter().copied());
        }
        self.out.push(END_OF_BLOCKS);
    }

    fn is_null(&self, at: usize) -> bool {
        matches!(self.tape.get(at), Some(Node::Static(StaticNode::Null)))
    }

    fn json_text(&mut self, at: usize) {
        self.check(at);
        let json = &mut self.buffers.json;
        json.clear();
        write_json(self.tape, at, json);
        write_string(self.out, json);
    }

    /// Looks for duplicate members inside a value that no plan leads through.
    fn check(&mut self, at: usize) {
        self.buffers.ambiguous |= check(self.tape, at, &mut self.buffers.members).is_err();
    }

    /// Adds the value at `at` to `extras`, under the pointer of the path and `step`.
    fn put_aside(&mut self, step: Step, at: usize) {
        self.check(at);
        let Transcoder { path, extras, extras_count, extras_max, json, .. } = &mut *self.buffers;
        // Safe to skip: if the array rolls `extras` back, the skipped entry would have been rolled back with it.
        if extras_max.is_some_and(|max| extras.len() > max) {
            return;
        }
        json.clear();
        for step in path.iter().chain([&step]) {
            write_step(self.tape, *step, json);
        }
        write_string(extras, json);
        json.clear();
        write_json(self.tape, at, json);
        write_string(extras, json);
        *extras_count += 1;
    }

    fn write_extras(&mut self) {
        if self.buffers.extras_count > 0 {
            write_long(self.out, self.buffers.extras_count as i64);
            self.out.extend_from_slice(&self.buffers.extras);
        }
        self.out.push(END_OF_BLOCKS);
    }
}

/// How well a value fits its field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// The field restores the value as it was.
    Exact,
    /// The field holds the value, but only `extras` can restore its text.
    Inexact,
    /// The field cannot hold the value.
    Misfit,
}

const NULL_BRANCH: u8 = 0;
/// Branch 1 of a union as an Avro int: zigzag 2.
const VALUE_BRANCH: u8 = 2;
const END_OF_BLOCKS: u8 = 0;

fn write_step(tape: &[Node<'_>], step: Step, pointer: &mut Vec<u8>) {
    match step {
        Step::Element(index) => write_token(index.to_string().as_bytes(), pointer),
        Step::Member(value) => {
            let Some(Node::String(key)) = tape.get(value.wrapping_sub(1)) else { return };
            write_token(key.as_bytes(), pointer);
        }
    }
}

/// Appends a token to a JSON pointer (RFC 6901): `~` becomes `~0`, `/` becomes `~1`.
fn write_token(token: &[u8], pointer: &mut Vec<u8>) {
    pointer.push(b'/');
    for byte in token {
        match byte {
            b'~' => pointer.extend_from_slice(b"~0"),
            b'/' => pointer.extend_from_slice(b"~1"),
            other => pointer.push(*other),
        }
    }
}

/// Compares short texts eight bytes at a time: a call of `memcmp` costs more than comparing a member's name.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    let eights = |text| <[u8]>::as_chunks::<8>(text).0.iter();
    a.len() == b.len()
        && match (a.last_chunk::<8>(), b.last_chunk::<8>()) {
            (Some(last_a), Some(last_b)) => last_a == last_b && eights(a).zip(eights(b)).all(|(a, b)| a == b),
            _ => a == b,
        }
}

/// The whole number that equals `number`; `5.0` is 5.
fn as_i64(number: StaticNode) -> Option<i64> {
    match number {
        StaticNode::I64(long) => Some(long),
        StaticNode::U64(long) => i64::try_from(long).ok(),
        StaticNode::F64(double) => {
            let long = double as i64;
            // The comparison is in i128, as `i64::MAX as f64` rounds up to a number beyond i64.
            (double.fract() == 0.0 && i128::from(long) == double as i128).then_some(long)
        }
        StaticNode::Null | StaticNode::Bool(_) => None,
    }
}

/// The double that equals `number`; `None` for an integer that f64 would round.
fn as_f64(number: StaticNode) -> Option<f64> {
    match number {
        StaticNode::F64(double) => Some(double),
        StaticNode::I64(long) => Some(long as f64).filter(|double| *double as i128 == i128::from(long)),
        StaticNode::U64(long) => Some(long as f64).filter(|double| *double as i128 == i128::from(long)),
        StaticNode::Null | StaticNode::Bool(_) => None,
    }
}
