//! Writing the string at a path.

use smallvec::SmallVec;

use super::rope::{Composer, Rope};
use super::walk::{LENGTH_DELIMITED, Location, Malformed, locate};

/// A copy of `rope` whose string at `path` decodes as `value`. The body is shared, not copied; the length
/// prefixes of all enclosing messages are corrected. Where the field is absent it is appended to the deepest
/// existing message on the path, with the messages that are missing.
///
/// # Errors
/// [`Malformed`] if the message cannot be read up to its end, or a field on the path has another wire type.
pub fn splice(rope: &Rope, path: &[u32], value: &str) -> Result<Rope, Malformed> {
    if path.is_empty() {
        return Ok(rope.clone());
    }
    let location = locate(rope, path)?;
    let (from, to, head) = replacement(rope, path, value, &location);
    let mut composer = Composer::default();
    let mut copied = 0;
    let inserted = head.len() + value.len();
    for (span, len) in location.enclosing.iter().zip(new_lengths(&location, to - from, inserted)) {
        composer.slice(rope, copied, span.prefix);
        composer.literal(&encode_varint(len));
        copied = span.start;
    }
    composer.slice(rope, copied, from);
    composer.literal(&head);
    composer.literal(value.as_bytes());
    composer.slice(rope, to, rope.len());
    Ok(composer.finish())
}

/// A few varints.
type Varints = SmallVec<[u8; 16]>;

/// The range to replace, and what comes there before the value: its length, and where it is missing, the tags
/// and lengths of the field and of the messages around it.
fn replacement(rope: &Rope, path: &[u32], value: &str, location: &Location) -> (usize, usize, Varints) {
    if let Some(field) = location.field {
        return (field.prefix, field.end(), encode_varint(value.len()));
    }
    let at = location.enclosing.last().map_or(rope.len(), super::walk::Span::end);
    let mut head = Varints::new();
    for field in path[location.enclosing.len()..].iter().rev() {
        let mut wrapped = encode(u64::from(*field) << 3 | LENGTH_DELIMITED);
        wrapped.extend_from_slice(&encode_varint(head.len() + value.len()));
        wrapped.extend_from_slice(&head);
        head = wrapped;
    }
    (at, at, head)
}

/// The corrected content lengths of the enclosing messages, outermost first.
fn new_lengths(location: &Location, removed: usize, inserted: usize) -> SmallVec<[usize; 4]> {
    let (mut removed, mut inserted) = (removed, inserted);
    let mut lengths: SmallVec<[usize; 4]> = SmallVec::new();
    for span in location.enclosing.iter().rev() {
        let len = span.len + inserted - removed;
        lengths.push(len);
        removed += span.start - span.prefix;
        inserted += encode_varint(len).len();
    }
    lengths.reverse();
    lengths
}

fn encode_varint(value: usize) -> Varints {
    encode(value as u64)
}

fn encode(mut value: u64) -> Varints {
    let mut encoded = Varints::new();
    while value >= 0x80 {
        encoded.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    encoded.push((value & 0x7f) as u8);
    encoded
}
