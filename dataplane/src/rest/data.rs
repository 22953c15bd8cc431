//! The `data` of a tensor in JSON: flat or nested as its shape says, flattened into typed contents.

use std::borrow::Cow;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use smallvec::SmallVec;

use crate::v2::TensorContents;

/// No tensor has a rank like this; a bound for nested input.
const MAX_DEPTH: usize = 32;

/// The typed contents of a tensor.
///
/// `data` is valid JSON, or `None` for null and absent.
///
/// # Errors
/// A text for the user, without the tensor's name.
pub fn contents(
    datatype: &str,
    shape: &[i64],
    data: Option<&str>,
    base64: bool,
) -> Result<TensorContents, String> {
    let mut contents = TensorContents::default();
    let Some(data) = data else {
        return match shape.len() {
            0 | 1 => Ok(contents),
            _ => Err("has no data".to_owned()),
        };
    };
    match datatype {
        "BOOL" => contents.bool_contents = flatten(data, shape, boolean)?,
        "UINT8" => contents.uint_contents = flatten(data, shape, narrow::<u8, _>)?,
        "UINT16" => contents.uint_contents = flatten(data, shape, narrow::<u16, _>)?,
        "UINT32" => contents.uint_contents = flatten(data, shape, integer)?,
        "UINT64" => contents.uint64_contents = flatten(data, shape, integer)?,
        "INT8" => contents.int_contents = flatten(data, shape, narrow::<i8, _>)?,
        "INT16" => contents.int_contents = flatten(data, shape, narrow::<i16, _>)?,
        "INT32" => contents.int_contents = flatten(data, shape, integer)?,
        "INT64" => contents.int64_contents = flatten(data, shape, integer)?,
        "FP32" => contents.fp32_contents = flatten(data, shape, |token| float(token, f32::is_finite))?,
        "FP64" => contents.fp64_contents = flatten(data, shape, |token| float(token, f64::is_finite))?,
        "BYTES" => contents.bytes_contents = byte_strings(data, shape, base64)?,
        "FP16" | "BF16" => return Err(format!("has the datatype {datatype}, which JSON cannot carry")),
        _ => return Err(format!("has the datatype {datatype:?}, which the protocol does not define")),
    }
    Ok(contents)
}

fn boolean(token: &str) -> Result<bool, String> {
    token.parse().map_err(|_| format!("contains {}, which is neither true nor false", shown(token)))
}

fn integer<T: FromStr>(token: &str) -> Result<T, String> {
    token.parse().map_err(|_| format!("contains {}, which is not an integer in its range", shown(token)))
}

/// An integer of the range of `N`, in the wider type that the protocol carries it in.
fn narrow<N: FromStr, W: From<N>>(token: &str) -> Result<W, String> {
    integer::<N>(token).map(W::from)
}

fn float<T: FromStr + Copy>(token: &str, is_finite: fn(T) -> bool) -> Result<T, String> {
    // Rust reads words such as inf as numbers; JSON does not.
    let number = token.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    match token.parse() {
        Ok(value) if number && is_finite(value) => Ok(value),
        _ => Err(format!("contains {}, which is not a number in its range", shown(token))),
    }
}

fn shown(token: &str) -> Cow<'_, str> {
    match token.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &token[..end]).into(),
        None => token.into(),
    }
}

fn flatten<T>(
    data: &str,
    shape: &[i64],
    mut parse: impl FnMut(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let mut values = Vec::with_capacity(expected(shape).min(data.len() / 2 + 1));
    let mut nesting = Nesting::default();
    for token in Tokens::new(data) {
        nesting.note(&token)?;
        if let Token::Scalar(text) = token {
            values.push(parse(text)?);
        }
    }
    nesting.check(shape, nesting.leaf_depth)?;
    Ok(values)
}

/// Elements of the shape; 0 where it leaves a dimension open.
fn expected(shape: &[i64]) -> usize {
    shape
        .iter()
        .try_fold(1usize, |product, dimension| product.checked_mul(usize::try_from(*dimension).ok()?))
        .unwrap_or(0)
}

/// BYTES: strings (text, or base64 where the tensor's `content_type` says so), or lists of byte values.
fn byte_strings(data: &str, shape: &[i64], base64: bool) -> Result<Vec<Bytes>, String> {
    let mut elements: Vec<Bytes> = Vec::new();
    let mut list: Option<Vec<u8>> = None;
    let mut nesting = Nesting::default();
    let mut strings = false;
    for token in Tokens::new(data) {
        nesting.note(&token)?;
        match token {
            Token::Open => list = Some(Vec::new()),
            Token::Close => {
                elements.extend(list.take().filter(|_| !strings && nesting.depth > 0).map(Bytes::from));
            }
            Token::Scalar(text) if text.starts_with('"') => {
                strings = true;
                elements.push(byte_string(text, base64)?);
            }
            Token::Scalar(text) => match &mut list {
                Some(list) if !strings => list.push(integer(text)?),
                _ => return Err("mixes strings and numbers".to_owned()),
            },
        }
    }
    if strings {
        nesting.check(shape, nesting.leaf_depth)?;
        let room = expected(shape);
        if elements.len() > room && shape.iter().all(|dimension| *dimension >= 0) {
            return Err(format!("has {} strings, but its shape has room for {room}", elements.len()));
        }
    } else if nesting.leaf_depth == 1 {
        return Err("is of type BYTES and has a flat list of numbers; put each element's bytes into a list"
            .to_owned());
    } else {
        nesting.check(shape, nesting.leaf_depth.saturating_sub(1))?;
    }
    Ok(elements)
}

fn byte_string(token: &str, base64: bool) -> Result<Bytes, String> {
    let text: String = serde_json::from_str(token)
        .map_err(|error| format!("contains a string that is not text: {error}"))?;
    if base64 {
        return STANDARD
            .decode(&text)
            .map(Bytes::from)
            .map_err(|error| format!("contains a string that is not base64: {error}"));
    }
    Ok(Bytes::from(text))
}

/// How arrays lie in one another.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    /// Depth of the scalars; 0 while there is none.
    leaf_depth: usize,
    /// Elements so far in the array that is open at each depth.
    counts: SmallVec<[usize; 4]>,
    /// Elements of the first array closed at each depth.
    extents: SmallVec<[Option<usize>; 4]>,
    /// The least depth at which arrays differ in length.
    ragged: Option<usize>,
}

impl Nesting {
    fn note(&mut self, token: &Token<'_>) -> Result<(), String> {
        match token {
            Token::Open => {
                self.element();
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(format!("is nested deeper than {MAX_DEPTH} levels"));
                }
                self.counts.push(0);
                if self.extents.len() < self.depth {
                    self.extents.push(None);
                }
            }
            Token::Close => {
                let count = self.counts.pop().unwrap_or_default();
                let extent = &mut self.extents[self.depth - 1];
                if extent.is_some_and(|extent| extent != count) {
                    self.ragged = Some(self.ragged.map_or(self.depth, |depth| depth.min(self.depth)));
                }
                *extent = Some(count);
                self.depth -= 1;
            }
            Token::Scalar(text) => {
                if self.depth == 0 || text.starts_with('{') {
                    return Err("has data that is not an array of scalars".to_owned());
                }
                if self.leaf_depth != 0 && self.leaf_depth != self.depth {
                    return Err("has scalars at different depths".to_owned());
                }
                self.leaf_depth = self.depth;
                self.element();
            }
        }
        Ok(())
    }

    fn element(&mut self) {
        if let Some(count) = self.counts.last_mut() {
            *count += 1;
        }
    }

    /// Data is flat, or nested in exactly the way of the shape. Levels from `levels` on are no dimensions.
    fn check(&self, shape: &[i64], levels: usize) -> Result<(), String> {
        if levels <= 1 {
            return Ok(());
        }
        if self.ragged.is_some_and(|depth| depth <= levels) {
            return Err("has nested arrays of different lengths".to_owned());
        }
        let found: Vec<usize> =
            self.extents[..levels].iter().map(|extent| extent.unwrap_or_default()).collect();
        let fits = found.len() == shape.len()
            && found
                .iter()
                .zip(shape)
                .all(|(len, dimension)| i64::try_from(*len) == Ok(*dimension) || *dimension < 0);
        if fits { Ok(()) } else { Err(format!("has data nested as {found:?}, but the shape {shape:?}")) }
    }
}

enum Token<'a> {
    Open,
    Close,
    Scalar(&'a str),
}

/// The tokens of valid JSON, an object counting as one.
struct Tokens<'a> {
    text: &'a str,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        Self { text }
    }

    fn split(&mut self, at: usize) -> &'a str {
        let (token, rest) = self.text.split_at(at);
        self.text = rest;
        token
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let bytes = self.text.as_bytes();
        let start = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b','))?;
        self.text = &self.text[start..];
        let bytes = &bytes[start..];
        match bytes[0] {
            b'[' => {
                self.split(1);
                Some(Token::Open)
            }
            b']' => {
                self.split(1);
                Some(Token::Close)
            }
            b'"' => Some(Token::Scalar(self.split(string_len(bytes)))),
            b'{' => Some(Token::Scalar(self.split(bytes.len()))),
            _ => {
                let end =
                    bytes.iter().position(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b',' | b']'));
                Some(Token::Scalar(self.split(end.unwrap_or(bytes.len()))))
            }
        }
    }
}

/// Length of the string literal at the beginning of `bytes`, quotes included.
fn string_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}
