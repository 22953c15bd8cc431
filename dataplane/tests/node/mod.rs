//! The message that extraction and splicing are compared with prost on, by tests and by the fuzzer.

use _native::message::Rope;
use bytes::Bytes;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, boxed, tag = "2")]
    pub child: Option<Box<Node>>,
    #[prost(uint64, tag = "3")]
    pub number: u64,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub blobs: Vec<Vec<u8>>,
    #[prost(fixed32, tag = "5")]
    pub fixed32: u32,
    #[prost(fixed64, tag = "6")]
    pub fixed64: u64,
    #[prost(string, tag = "2000")]
    pub far: String,
}

impl Node {
    /// The text at one of the paths, made where it is absent.
    pub fn text(&mut self, path: &[u32]) -> &mut String {
        match path {
            [1] => &mut self.name,
            [2000] => &mut self.far,
            [2, rest @ ..] => self.child.get_or_insert_default().text(rest),
            _ => unreachable!("no path of these tests"),
        }
    }
}

/// Bytes as they come in from the network, in pieces.
pub fn chunked(bytes: &[u8], size: usize) -> Rope {
    let mut rope = Rope::default();
    for chunk in bytes.chunks(size) {
        rope.push(Bytes::copy_from_slice(chunk));
    }
    rope
}
