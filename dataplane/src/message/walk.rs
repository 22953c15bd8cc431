//! One pass over an encoded message that finds the field at a path of field numbers.

use std::fmt;

use smallvec::SmallVec;

use super::rope::{Cursor, Rope};

/// Groups may nest; nobody nests them deeper than this, and the stack is finite.
const MAX_GROUP_DEPTH: usize = 100;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
/// Wire type of strings, bytes and embedded messages.
pub const LENGTH_DELIMITED: u64 = 2;
const GROUP_START: u64 = 3;
const GROUP_END: u64 = 4;
const FIXED32: u64 = 5;

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The message ends inside a field.
    Truncated,
    /// A field reaches beyond the message that encloses it.
    Overrun,
    /// A varint of more than ten bytes, or a tag or length out of range.
    Varint,
    /// Field number 0, wire type 6 or 7, or a group that is not closed.
    Tag,
    /// The field at the path is not a length-delimited one.
    WireType,
    /// The string at the path is not UTF-8.
    Utf8,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the message ends inside a field",
            Self::Overrun => "a field reaches beyond the message that encloses it",
            Self::Varint => "a varint is too long or out of range",
            Self::Tag => "a field's tag is invalid",
            Self::WireType => "the field of the model id is not a string",
            Self::Utf8 => "the model id is not UTF-8",
        })
    }
}

/// A length-delimited field: its length prefix begins at `prefix`, its content at `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub prefix: usize,
    pub start: usize,
    pub len: usize,
}

impl Span {
    pub fn end(&self) -> usize {
        self.start + self.len
    }
}

/// Where a path leads: through which embedded messages, outermost first, and to which field.
///
/// Without `field`, `enclosing` are the deepest existing messages on the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    pub enclosing: SmallVec<[Span; 4]>,
    pub field: Option<Span>,
}

/// Finds the occurrence of the field at `path` that decides its value: the last one, over all occurrences of
/// the messages that enclose it (protobuf merges repeated occurrences of a singular message).
pub fn locate(rope: &Rope, path: &[u32]) -> Result<Location, Malformed> {
    let mut walk = Walk { cursor: Cursor::new(rope), trail: SmallVec::new(), best: Location::default() };
    walk.message(rope.len(), path)?;
    Ok(walk.best)
}

struct Walk<'a> {
    cursor: Cursor<'a>,
    trail: SmallVec<[Span; 4]>,
    best: Location,
}

impl Walk<'_> {
    fn message(&mut self, end: usize, path: &[u32]) -> Result<(), Malformed> {
        while self.cursor.position() < end {
            let (field, wire_type) = self.tag()?;
            match path.split_first() {
                Some((first, rest)) if *first == field => {
                    if wire_type != LENGTH_DELIMITED {
                        return Err(Malformed::WireType);
                    }
                    let span = self.span(end)?;
                    if rest.is_empty() {
                        self.best = Location { enclosing: self.trail.clone(), field: Some(span) };
                        self.skip(span.len)?;
                    } else {
                        self.enter(span, rest)?;
                    }
                }
                _ => self.skip_field(field, wire_type, end, 0)?,
            }
            if self.cursor.position() > end {
                return Err(Malformed::Overrun);
            }
        }
        Ok(())
    }

    fn enter(&mut self, span: Span, rest: &[u32]) -> Result<(), Malformed> {
        self.trail.push(span);
        if self.best.field.is_none() && self.trail.len() >= self.best.enclosing.len() {
            self.best.enclosing.clone_from(&self.trail);
        }
        self.message(span.end(), rest)?;
        self.trail.pop();
        Ok(())
    }

    fn span(&mut self, end: usize) -> Result<Span, Malformed> {
        let prefix = self.cursor.position();
        let len = usize::try_from(self.varint()?).map_err(|_| Malformed::Varint)?;
        let start = self.cursor.position();
        if start.checked_add(len).is_none_or(|field_end| field_end > end) {
            return Err(Malformed::Overrun);
        }
        Ok(Span { prefix, start, len })
    }

    fn tag(&mut self) -> Result<(u32, u64), Malformed> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed::Varint)?;
        if tag >> 3 == 0 {
            return Err(Malformed::Tag);
        }
        Ok((tag >> 3, u64::from(tag & 7)))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.cursor.byte().ok_or(Malformed::Truncated)?;
            // The tenth byte has one bit, and none follows.
            if shift == 63 && byte > 1 {
                return Err(Malformed::Varint);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        if self.cursor.skip(count) { Ok(()) } else { Err(Malformed::Truncated) }
    }

    fn skip_field(&mut self, field: u32, wire_type: u64, end: usize, depth: usize) -> Result<(), Malformed> {
        match wire_type {
            VARINT => self.varint().map(|_| ()),
            FIXED64 => self.skip(8),
            FIXED32 => self.skip(4),
            LENGTH_DELIMITED => {
                let span = self.span(end)?;
                self.skip(span.len)
            }
            GROUP_START if depth < MAX_GROUP_DEPTH => self.skip_group(field, end, depth + 1),
            _ => Err(Malformed::Tag),
        }
    }

    fn skip_group(&mut self, opened: u32, end: usize, depth: usize) -> Result<(), Malformed> {
        while self.cursor.position() < end {
            let (field, wire_type) = self.tag()?;
            if wire_type == GROUP_END {
                return if field == opened { Ok(()) } else { Err(Malformed::Tag) };
            }
            self.skip_field(field, wire_type, end, depth)?;
        }
        Err(Malformed::Tag)
    }
}
