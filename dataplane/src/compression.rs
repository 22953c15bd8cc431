//! Compressed gRPC messages: made plain where a model id is to be read or written in them.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderValue};

use crate::grpc::{self, Message};
use crate::message::Rope;
use crate::status::Status;

/// What [`plain`] understands, for `grpc-accept-encoding`.
pub const UNDERSTOOD: HeaderValue = HeaderValue::from_static("identity,deflate,gzip");
/// A larger message is inflated on a thread that may wait.
const INLINE_BELOW: usize = 16 << 10;

/// The message without compression, of at most `limit` bytes.
///
/// # Errors
/// `UNIMPLEMENTED` if `grpc-encoding` is none of [`UNDERSTOOD`], `INVALID_ARGUMENT` if the message is not what
/// it says, `RESOURCE_EXHAUSTED` if it is larger than the limit.
pub fn plain(message: Message, headers: &HeaderMap, limit: usize) -> Result<Message, Status> {
    if !message.compressed {
        return Ok(message);
    }
    let encoding = headers.get(grpc::ENCODING).map_or(&b"identity"[..], HeaderValue::as_bytes);
    let body = message.body.to_bytes();
    let inflated = match encoding {
        b"gzip" => inflated(MultiGzDecoder::new(&*body), limit)?,
        b"deflate" => inflated(ZlibDecoder::new(&*body), limit)?,
        b"identity" => {
            return Err(Status::invalid(
                "the message is marked as compressed, but there is no grpc-encoding",
            ));
        }
        other => {
            let other = String::from_utf8_lossy(other);
            return Err(Status::unimplemented(format!(
                "the message carries the model id, but is compressed with {other}; send it without compression, \
                 or with gzip or deflate"
            )));
        }
    };
    Ok(Message { compressed: false, body: Rope::from(inflated) })
}

/// As [`plain`], without holding up other requests of this thread.
///
/// # Errors
/// As [`plain`].
pub async fn plain_aside(message: Message, headers: &HeaderMap, limit: usize) -> Result<Message, Status> {
    if !message.compressed || message.body.len() < INLINE_BELOW {
        return plain(message, headers, limit);
    }
    let mut encoding = HeaderMap::new();
    if let Some(value) = headers.get(grpc::ENCODING) {
        encoding.insert(grpc::ENCODING, value.clone());
    }
    let work = tokio::task::spawn_blocking(move || plain(message, &encoding, limit));
    work.await.unwrap_or_else(|_| Err(Status::unavailable("this instance is shutting down")))
}

fn inflated(mut source: impl Read, limit: usize) -> Result<Bytes, Status> {
    let mut inflated = Vec::new();
    // One byte more than the limit shows that there is more.
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    source
        .by_ref()
        .take(most)
        .read_to_end(&mut inflated)
        .map_err(|error| Status::invalid(format!("the message cannot be decompressed: {error}")))?;
    if inflated.len() > limit {
        return Err(Status::too_large("decompressed message", limit));
    }
    Ok(inflated.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;
    use crate::status::Code;

    fn encoded(encoding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(grpc::ENCODING, HeaderValue::from_static(encoding))])
    }

    fn compressed(body: Vec<u8>) -> Message {
        Message { compressed: true, body: Rope::from(Bytes::from(body)) }
    }

    fn gzip(body: &[u8]) -> Message {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        compressed(encoder.finish().unwrap())
    }

    #[tokio::test]
    async fn gzip_and_deflate_are_made_plain() {
        let body: Vec<u8> = (0..200_000_u32).flat_map(|number| (number ^ 0x5555).to_le_bytes()).collect();
        let large = plain_aside(gzip(&body), &encoded("gzip"), 1 << 20).await.unwrap();
        assert_eq!((large.compressed, large.body.to_bytes()), (false, Bytes::from(body)));
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"hello").unwrap();
        let small = plain(compressed(encoder.finish().unwrap()), &encoded("deflate"), 5).unwrap();
        assert_eq!(small.body.to_bytes(), "hello");
    }

    #[test]
    fn what_is_not_as_it_says_is_refused() {
        let bomb = gzip(&vec![0; 1 << 20]);
        for (message, headers, expected) in [
            (bomb, encoded("gzip"), Code::ResourceExhausted),
            (compressed(b"no gzip".to_vec()), encoded("gzip"), Code::InvalidArgument),
            (gzip(b"hello"), encoded("snappy"), Code::Unimplemented),
            (gzip(b"hello"), HeaderMap::new(), Code::InvalidArgument),
        ] {
            assert_eq!(plain(message, &headers, 1000).unwrap_err().code, expected, "{headers:?}");
        }
    }
}
