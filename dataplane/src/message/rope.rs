//! Bytes in the chunks in which they arrived.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// Pieces shorter than this are copied together when a rope is built: a frame and a write for each, or only
/// keeping it apart, would cost more than the copy.
const COALESCE_BELOW: usize = 1024;

/// A message body as a list of shared, immutable chunks. Cloning and slicing copy no payload.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    chunks: SmallVec<[Bytes; 2]>,
    len: usize,
}

impl Rope {
    /// Number of bytes over all chunks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is not one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunks, in order; none is empty.
    #[must_use]
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// Appends a chunk.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push(chunk);
        }
    }

    /// Appends a chunk as it came over the network. Small ones are joined, since a sender may choose chunks of
    /// one byte, and each has a cost of its own.
    pub fn receive(&mut self, chunk: Bytes) {
        match self.chunks.last_mut() {
            Some(last) if last.len() + chunk.len() <= COALESCE_BELOW => {
                self.len += chunk.len();
                let mut joined = std::mem::take(last).try_into_mut().unwrap_or_else(|shared| {
                    let mut copy = BytesMut::with_capacity(COALESCE_BELOW);
                    copy.extend_from_slice(&shared);
                    copy
                });
                joined.extend_from_slice(&chunk);
                *last = joined.freeze();
            }
            _ => self.push(chunk),
        }
    }

    /// Drops the first `count` bytes (or all, if there are fewer).
    pub fn advance(&mut self, count: usize) {
        let mut left = count.min(self.len);
        self.len -= left;
        let mut whole = 0;
        for chunk in &mut self.chunks {
            if chunk.len() > left {
                let _ = chunk.split_to(left);
                break;
            }
            left -= chunk.len();
            whole += 1;
        }
        self.chunks.drain(..whole);
    }

    /// The first `N` bytes; `None` if there are fewer.
    #[must_use]
    pub fn first<const N: usize>(&self) -> Option<[u8; N]> {
        if let Some(first) = self.chunks.first().and_then(|chunk| chunk.first_chunk::<N>()) {
            return Some(*first);
        }
        if self.len < N {
            return None;
        }
        let mut first = [0; N];
        for (to, from) in first.iter_mut().zip(self.chunks.iter().flatten()) {
            *to = *from;
        }
        Some(first)
    }

    /// Takes the first `count` bytes off (or all, if there are fewer).
    #[must_use]
    pub fn split_to(&mut self, count: usize) -> Self {
        if count >= self.len {
            return std::mem::take(self);
        }
        let mut taken = Self::default();
        let mut whole = 0;
        for chunk in &mut self.chunks {
            let left = count - taken.len;
            if chunk.len() > left {
                taken.push(chunk.split_to(left));
                break;
            }
            taken.push(std::mem::take(chunk));
            whole += 1;
        }
        self.chunks.drain(..whole);
        self.len -= count;
        taken
    }

    /// The bytes in one piece; copies only if there is more than one chunk.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self.chunks.as_slice() {
            [] => Bytes::new(),
            [only] => only.clone(),
            many => {
                let mut whole = BytesMut::with_capacity(self.len);
                for chunk in many {
                    whole.extend_from_slice(chunk);
                }
                whole.freeze()
            }
        }
    }
}

impl From<Bytes> for Rope {
    fn from(chunk: Bytes) -> Self {
        let mut rope = Self::default();
        rope.push(chunk);
        rope
    }
}

/// Composes a rope from literal bytes and slices of another rope, copying only small pieces.
#[derive(Debug, Default)]
pub struct Composer {
    rope: Rope,
    small: SmallVec<[u8; 256]>,
}

impl Composer {
    /// Appends a copy of `bytes`.
    pub fn literal(&mut self, bytes: &[u8]) {
        self.small.extend_from_slice(bytes);
    }

    /// Appends `source[start..end]`.
    pub fn slice(&mut self, source: &Rope, start: usize, end: usize) {
        let mut at = 0;
        for chunk in &source.chunks {
            let (from, to) = (start.max(at), end.min(at + chunk.len()));
            if from < to {
                self.piece(chunk, from - at, to - at);
            }
            at += chunk.len();
            if at >= end {
                break;
            }
        }
    }

    fn piece(&mut self, chunk: &Bytes, from: usize, to: usize) {
        if to - from < COALESCE_BELOW {
            self.small.extend_from_slice(&chunk[from..to]);
        } else {
            self.flush();
            self.rope.push(chunk.slice(from..to));
        }
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.rope.push(Bytes::copy_from_slice(&self.small));
            self.small.clear();
        }
    }

    /// The composed rope.
    #[must_use]
    pub fn finish(&mut self) -> Rope {
        self.flush();
        std::mem::take(&mut self.rope)
    }
}

/// Reads a rope from front to back.
#[derive(Debug)]
pub struct Cursor<'a> {
    chunks: &'a [Bytes],
    chunk: usize,
    offset: usize,
    position: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the first byte of `rope`.
    #[must_use]
    pub fn new(rope: &'a Rope) -> Self {
        Self { chunks: &rope.chunks, chunk: 0, offset: 0, position: 0 }
    }

    /// Number of bytes before the cursor.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next byte, if there is one.
    pub fn byte(&mut self) -> Option<u8> {
        let chunk = self.chunks.get(self.chunk)?;
        let byte = *chunk.get(self.offset)?;
        self.moved(1, chunk.len());
        Some(byte)
    }

    fn moved(&mut self, count: usize, chunk_len: usize) {
        self.position += count;
        self.offset += count;
        if self.offset == chunk_len {
            self.chunk += 1;
            self.offset = 0;
        }
    }

    /// Moves on by `count` bytes; false if there are fewer.
    pub fn skip(&mut self, count: usize) -> bool {
        let mut left = count;
        while left > 0 {
            let Some(chunk) = self.chunks.get(self.chunk) else { return false };
            let step = left.min(chunk.len() - self.offset);
            self.moved(step, chunk.len());
            left -= step;
        }
        true
    }

    /// The next `count` bytes, shared with the rope where they lie in one chunk; `None` if there are fewer.
    pub fn take(&mut self, count: usize) -> Option<Bytes> {
        if count == 0 {
            return Some(Bytes::new());
        }
        let chunk = self.chunks.get(self.chunk)?;
        if let Some(end) = self.offset.checked_add(count).filter(|end| *end <= chunk.len()) {
            let taken = chunk.slice(self.offset..end);
            self.moved(count, chunk.len());
            return Some(taken);
        }
        let mut taken = BytesMut::new();
        let mut left = count;
        while left > 0 {
            let chunk = self.chunks.get(self.chunk)?;
            let step = left.min(chunk.len() - self.offset);
            taken.extend_from_slice(&chunk[self.offset..self.offset + step]);
            self.moved(step, chunk.len());
            left -= step;
        }
        Some(taken.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(parts: &[&'static [u8]]) -> Rope {
        let mut rope = Rope::default();
        for part in parts {
            rope.push(Bytes::from_static(part));
        }
        rope
    }

    #[test]
    fn advance_crosses_chunks() {
        let mut subject = rope(&[b"ab", b"cd", b"ef"]);
        subject.advance(3);
        assert_eq!(subject.to_bytes(), "def");
        assert_eq!(subject.len(), 3);
        subject.advance(10);
        assert!(subject.is_empty());
    }

    #[test]
    fn split_and_first_cross_chunks() {
        let parts: [&[u8]; 3] = [b"ab", b"cd", b"ef"];
        for count in 0..8 {
            let mut subject = rope(&parts);
            let taken = subject.split_to(count);
            let (front, back) = b"abcdef".split_at(count.min(6));
            assert_eq!((taken.to_bytes(), taken.len()), (Bytes::from_static(front), front.len()));
            assert_eq!((subject.to_bytes(), subject.len()), (Bytes::from_static(back), back.len()));
        }
        assert_eq!(rope(&parts).first::<5>(), Some(*b"abcde"));
        assert_eq!(rope(&parts).first::<7>(), None);
    }

    #[test]
    fn small_chunks_are_joined_as_they_are_received() {
        let mut subject = Rope::default();
        let mut whole = Vec::new();
        let large = Bytes::from(vec![7; 5000]);
        for number in 0..20_000u16 {
            let small = Bytes::from(vec![number.to_le_bytes()[0]]);
            let chunk = if number == 9_000 { large.clone() } else { small };
            whole.extend_from_slice(&chunk);
            subject.receive(chunk);
        }
        assert_eq!(subject.to_bytes(), whole);
        assert_eq!(subject.len(), whole.len());
        assert!(subject.chunks().len() < 25, "{}", subject.chunks().len());
        assert!(subject.chunks().iter().any(|chunk| chunk.as_ptr() == large.as_ptr()));
    }

    #[test]
    fn take_joins_chunks_only_where_it_must() {
        let subject = rope(&[b"abc", b"def"]);
        let mut cursor = Cursor::new(&subject);
        assert_eq!(cursor.take(2).unwrap(), "ab");
        assert_eq!(cursor.take(3).unwrap(), "cde");
        assert_eq!(cursor.position(), 5);
        assert!(cursor.take(2).is_none());
    }

    #[test]
    fn composer_shares_large_pieces() {
        let body = Bytes::from(vec![7u8; 5000]);
        let source = Rope::from(body.clone());
        let mut composer = Composer::default();
        composer.literal(b"head");
        composer.slice(&source, 0, 10);
        composer.slice(&source, 10, 5000);
        let rope = composer.finish();
        assert_eq!(rope.len(), 5004);
        assert_eq!(rope.chunks().len(), 2);
        assert_eq!(rope.chunks()[1].as_ptr(), body[10..].as_ptr());
    }
}
