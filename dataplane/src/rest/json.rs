//! Writing compact JSON as Go's encoder does, which the original used.

use std::fmt::{Display, LowerExp};
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// An object being written.
pub struct Object<'a> {
    json: &'a mut Vec<u8>,
    first: bool,
}

impl Object<'_> {
    /// Begins a member; its value is to be written next.
    pub fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !self.first {
            self.json.push(b',');
        }
        self.first = false;
        text(self.json, key);
        self.json.push(b':');
        self.json
    }

    /// A member that is a string.
    pub fn text(&mut self, key: &str, value: &str) {
        text(self.key(key), value);
    }

    /// A member that is a string, left out where that is empty.
    pub fn optional_text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    /// A member whose text is JSON as it is.
    pub fn display(&mut self, key: &str, value: impl Display) {
        display(self.key(key), &value);
    }
}

/// Writes an object, whose members `fill` writes.
pub fn object(json: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
    json.push(b'{');
    fill(&mut Object { json, first: true });
    json.push(b'}');
}

/// Writes an array of `items`, each by `write`.
pub fn list<T>(json: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    json.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write(json, item);
    }
    json.push(b']');
}

/// Writes an array of integers.
pub fn numbers<T: itoa::Integer + Copy>(json: &mut Vec<u8>, values: &[T]) {
    let mut buffer = itoa::Buffer::new();
    list(json, values, |json, value| json.extend_from_slice(buffer.format(*value).as_bytes()));
}

/// Writes what is JSON as it is.
pub fn display(json: &mut Vec<u8>, value: &impl Display) {
    // Writing to memory cannot fail.
    let _ = write!(json, "{value}");
}

/// FP32 and FP64.
pub trait Float: Copy + Display + LowerExp {
    /// Neither infinite nor not a number.
    fn is_finite(self) -> bool;
    /// The exponent form is used outside this range of magnitudes, as Go's JSON does.
    fn is_plain(self) -> bool;
}

impl Float for f32 {
    fn is_finite(self) -> bool {
        self.is_finite()
    }

    fn is_plain(self) -> bool {
        self == 0.0 || (1e-6..1e21).contains(&self.abs())
    }
}

impl Float for f64 {
    fn is_finite(self) -> bool {
        self.is_finite()
    }

    fn is_plain(self) -> bool {
        self == 0.0 || (1e-6..1e21).contains(&self.abs())
    }
}

/// Writes the shortest form that reads back as the same number.
pub fn float<F: Float>(json: &mut Vec<u8>, value: F) {
    if value.is_plain() {
        display(json, &value);
    } else {
        let text = format!("{value:e}");
        let signed = if text.contains("e-") { text } else { text.replace('e', "e+") };
        json.extend_from_slice(signed.as_bytes());
    }
}

/// Writes an array of numbers.
///
/// # Errors
/// A text that names the first number that is not finite: JSON has none.
pub fn floats<F: Float>(json: &mut Vec<u8>, values: impl Iterator<Item = F>) -> Result<(), String> {
    json.push(b'[');
    for (index, value) in values.enumerate() {
        if !value.is_finite() {
            return Err(format!("contains {value}, which JSON cannot carry"));
        }
        if index > 0 {
            json.push(b',');
        }
        float(json, value);
    }
    json.push(b']');
    Ok(())
}

/// Writes a string literal of the bytes in base64.
pub fn base64(json: &mut Vec<u8>, bytes: impl AsRef<[u8]>) {
    json.push(b'"');
    json.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    json.push(b'"');
}

/// Writes a string literal. Characters that mean something in HTML are escaped, as the original did.
pub fn text(json: &mut Vec<u8>, value: &str) {
    let start = json.len();
    // Writing a string to memory cannot fail.
    let _ = value.serialize(&mut serde_json::Serializer::new(&mut *json));
    if json[start..].iter().any(|byte| matches!(byte, b'<' | b'>' | b'&')) {
        let literal = json.split_off(start);
        for byte in literal {
            match byte {
                b'<' | b'>' | b'&' => {
                    let _ = write!(json, "\\u{byte:04x}");
                }
                _ => json.push(byte),
            }
        }
    }
}
