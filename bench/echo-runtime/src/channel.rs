//! A client connection, opened again where it is lost.

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{HeaderValue, Method, Request, Uri, Version, header};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Duration, sleep};

use crate::grpc::{CONTENT_TYPE, Code, Status, read_message};

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// More calls than a client ever has open; those that gave up count for some time.
const MAX_STREAMS: usize = 100_000;
/// A server that refuses connections is not asked faster than this.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// One connection to `host:port`.
#[derive(Debug)]
pub struct Channel {
    target: String,
    method: Uri,
    timeout: HeaderValue,
    /// Held while one caller connects, so that the others wait for its connection.
    sender: Mutex<Option<SendRequest<Bytes>>>,
}

impl Channel {
    /// A channel that connects with its first call, for calls of one method (`/<service>/<name>`) with a
    /// deadline.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where `target` cannot be part of a URI.
    pub fn new(target: String, method: &str, deadline: Duration) -> Result<Self, Status> {
        let method = format!("http://{target}{method}").parse();
        let method =
            method.map_err(|error| Status::new(Code::INVALID_ARGUMENT, format!("{target}: {error}")))?;
        // The header holds at most eight digits.
        let milliseconds = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX).min(99_999_999);
        let timeout = HeaderValue::try_from(format!("{milliseconds}m"));
        let timeout = timeout.map_err(|error| Status::new(Code::INTERNAL, error.to_string()))?;
        Ok(Self { target, method, timeout, sender: Mutex::new(None) })
    }

    /// Calls the method with a framed request, sent when this is first polled.
    ///
    /// # Errors
    /// What the server answers, `UNAVAILABLE` where it does not, `INTERNAL` where its answer is not gRPC's.
    pub async fn call(&self, mut sender: SendRequest<Bytes>, message: Bytes) -> Result<(), Status> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert("grpc-timeout", self.timeout.clone());
        let (response, mut stream) = sender.send_request(request, false)?;
        stream.send_data(message, true)?;
        let (head, mut body) = response.await?.into_parts();
        if let Some(status) = Status::read(&head.headers) {
            return Err(status);
        }
        let message = read_message(&mut body).await;
        let trailers = body.trailers().await?.unwrap_or_default();
        match Status::read(&trailers) {
            Some(status) if status.code == Code::OK => message.map(drop),
            Some(status) => Err(status),
            None => Err(Status::new(Code::INTERNAL, format!("HTTP {} without a gRPC status", head.status))),
        }
    }

    /// Waits until a call can be sent at once.
    ///
    /// # Errors
    /// `UNAVAILABLE` where there is no connection, and none can be had.
    pub async fn ready(&self) -> Result<SendRequest<Bytes>, Status> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.clone()
            && let Ok(sender) = sender.ready().await
        {
            return Ok(sender);
        }
        *kept = None;
        match self.connect().await {
            Ok(sender) => Ok(kept.insert(sender).clone().ready().await?),
            Err(status) => {
                sleep(CONNECT_PAUSE).await;
                Err(status)
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, Status> {
        let connected = TcpStream::connect(&self.target).await;
        let io =
            connected.map_err(|error| Status::new(Code::UNAVAILABLE, format!("{}: {error}", self.target)))?;
        let _ = io.set_nodelay(true);
        let (sender, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(MAX_STREAMS)
            .max_concurrent_reset_streams(MAX_STREAMS)
            .handshake(io)
            .await?;
        // How the connection ends, its calls and the next `ready` tell.
        tokio::spawn(connection);
        Ok(sender)
    }
}
