//! Values for `extras`: their pointers and their texts.

use super::{
    super::{json::write_scalar, write_token},
    cursor::Cursor,
};
use crate::schema::Field;

/// The way from the root to a value.
pub enum Path<'p, 'a> {
    /// The root itself.
    Root,
    /// A member that the schema names.
    Field(&'p Path<'p, 'a>, &'p Field),
    /// A member that it does not name, or an entry of a map.
    Member(&'p Path<'p, 'a>, &'a [u8]),
    /// An element of an array, by its index.
    Element(&'p Path<'p, 'a>, usize),
}

impl Path<'_, '_> {
    /// Appends the way as a JSON pointer (RFC 6901).
    pub fn write(&self, pointer: &mut Vec<u8>) {
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

/// The names of an object's members, for finding duplicates.
#[derive(Default)]
pub struct Keys<'a> {
    known: [&'a [u8]; Keys::MAX],
    count: usize,
}

impl<'a> Keys<'a> {
    /// Each name is compared with all before it, so there may be only a few.
    const MAX: usize = 16;

    /// Adds a name; `None` when it is there already, or the set is full.
    pub fn add(&mut self, key: &'a [u8]) -> Option<()> {
        if self.known.iter().take(self.count).any(|known| *known == key) {
            return None;
        }
        *self.known.get_mut(self.count)? = key;
        self.count += 1;
        Some(())
    }
}

impl Cursor<'_> {
    /// Appends the text of the value at the cursor, exactly as [`write_json`](super::super::write_json) would.
    pub fn copy_json(&mut self, out: &mut Vec<u8>) -> Option<()> {
        match self.rest.first()? {
            b'"' => {
                let text = self.plain_string()?;
                out.push(b'"');
                out.extend_from_slice(text);
                out.push(b'"');
            }
            b'{' => {
                let mut keys = Keys::default();
                out.push(b'{');
                let mut more = self.open(b'{', b'}')?;
                while more {
                    let key = self.plain_string()?;
                    keys.add(key)?;
                    self.colon()?;
                    out.push(b'"');
                    out.extend_from_slice(key);
                    out.extend_from_slice(b"\":");
                    self.copy_json(out)?;
                    more = self.next(b'}')?;
                    out.extend_from_slice(if more { b"," } else { b"" });
                }
                out.push(b'}');
            }
            b'[' => {
                out.push(b'[');
                let mut more = self.open(b'[', b']')?;
                while more {
                    self.copy_json(out)?;
                    more = self.next(b']')?;
                    out.extend_from_slice(if more { b"," } else { b"" });
                }
                out.push(b']');
            }
            b'-' | b'0'..=b'9' => {
                let before = self.rest;
                if let Some(long) = self.integer().filter(|_| self.rest.first() != Some(&b'.')) {
                    write_scalar(long, out);
                } else {
                    self.rest = before;
                    let double = self.double()?;
                    write_scalar(double, out);
                }
            }
            _ => {
                let literals: [&[u8]; 3] = [b"true", b"false", b"null"];
                let (literal, rest) = literals.iter().find_map(|it| Some((it, self.rest.strip_prefix(*it)?)))?;
                out.extend_from_slice(literal);
                self.rest = rest;
            }
        }
        Some(())
    }
}
