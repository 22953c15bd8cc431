//! Reading the string at a path.

use bytes::Bytes;

use super::rope::{Cursor, Rope};
use super::walk::{Malformed, locate};

/// The string at `path` (field numbers, all but the last of embedded messages), as protobuf would decode it:
/// the last occurrence wins. `None` if the field is absent.
///
/// # Errors
/// [`Malformed`] if the message cannot be read up to its end, or the field is not a UTF-8 string.
pub fn extract(rope: &Rope, path: &[u32]) -> Result<Option<Bytes>, Malformed> {
    let Some(field) = locate(rope, path)?.field else { return Ok(None) };
    let mut cursor = Cursor::new(rope);
    if !cursor.skip(field.start) {
        return Err(Malformed::Truncated);
    }
    let value = cursor.take(field.len).ok_or(Malformed::Truncated)?;
    std::str::from_utf8(&value).map_err(|_| Malformed::Utf8)?;
    Ok(Some(value))
}
