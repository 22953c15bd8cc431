//! Encoded protobuf messages: finding and replacing one string field without decoding the rest.
//!
//! A message stays in the chunks in which it arrived ([`Rope`]); [`extract`](extract::extract) reads the
//! field at a path of field numbers, [`splice`](splice::splice) writes it and corrects the length prefix of
//! every enclosing message. Neither copies the body.

pub mod extract;
pub mod rope;
pub mod splice;
mod walk;

pub use extract::extract;
pub use rope::Rope;
pub use splice::splice;
pub use walk::Malformed;
