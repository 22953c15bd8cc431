//! Multiplexed HTTP/2 connections to a server: the model server, or a peer.
//!
//! Each worker thread has a connection of its own, so that a request stays on the thread that read it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use crate::body::Outgoing;
use crate::cork::Corked;
use crate::worker;

/// A server on the same machine or in the same cluster accepts within this, or is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that answers no ping for this long is frozen.
const PING_INTERVAL: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_millis(1500);
/// After its first failure a peer is left alone for this long, then for twice as long, up to the maximum.
const FIRST_REST: Duration = Duration::from_millis(50);
const MAX_REST: Duration = Duration::from_secs(5);
/// Window for one response; a response of the default maximum needs eight round trips.
const STREAM_WINDOW: u32 = 2 << 20;
/// The largest that HTTP/2 allows. All requests share the connection, so a smaller one would let a few clients
/// that read slowly stop the answers to all others; what one of them can hold is the window of its stream.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Largest head or trailers of an answer. Servers put whole tracebacks into `grpc-message`; an answer beyond this
/// looks like a broken server.
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `host:port`.
    Tcp(String),
    /// The path of a socket.
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    /// Parses `tcp:<host>:<port>` or `unix:<path>`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(PathBuf::from(path))),
            Some(("tcp", address)) if address.contains(':') => Ok(Self::Tcp(address.to_owned())),
            _ => Err(format!("target {text:?} is neither unix:<path> nor tcp:<host>:<port>")),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a server gave no answer.
#[derive(Clone, Debug)]
pub struct Unreachable {
    cause: Arc<str>,
    /// The server may have got the request.
    pub sent: bool,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

#[derive(Debug)]
enum Link {
    Down,
    Connecting,
    Up(SendRequest<Outgoing>),
    Failed(Unreachable),
}

/// How a server is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// A model server: gRPC servers other than our own refuse frequent pings, and the policy says how long to
    /// wait for one that is down.
    Runtime,
    /// An instance that the policy calls: a frozen one is noticed by pings.
    Called,
    /// An instance that requests are sent to: it is pinged, and left alone for some time when it fails.
    Peer,
}

/// How long a peer that has failed is left alone.
#[derive(Debug, Default)]
struct Rest {
    failures: u32,
    until: Option<Instant>,
}

/// A server, connected on first use and again after a failure; requests of a thread share a connection.
#[derive(Debug)]
pub struct Upstream {
    target: Target,
    authority: Authority,
    care: Care,
    links: Box<[watch::Sender<Link>]>,
    in_flight: AtomicU32,
    /// It has failed since it last answered; what is known of that is in `rest`.
    is_failing: AtomicBool,
    rest: Mutex<Rest>,
}

impl Upstream {
    /// A server at `target`, with as many connections as there are `threads`.
    #[must_use]
    pub fn new(target: Target, care: Care, threads: usize) -> Arc<Self> {
        let authority = match &target {
            Target::Tcp(address) => address.parse().ok(),
            Target::Unix(_) => None,
        };
        Arc::new(Self {
            target,
            authority: authority.unwrap_or(Authority::from_static("localhost")),
            care,
            links: std::iter::repeat_with(|| watch::Sender::new(Link::Down)).take(threads.max(1)).collect(),
            in_flight: AtomicU32::new(0),
            is_failing: AtomicBool::new(false),
            rest: Mutex::default(),
        })
    }

    /// True if it has failed and is left alone for now.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
            && self.rest.lock().until.is_some_and(|until| Instant::now() < until)
    }

    /// Lets a request through to a failing peer, one after each rest, since it may be frozen.
    fn admit(&self) -> Result<(), Unreachable> {
        if self.care == Care::Peer && self.is_failing.load(Ordering::Relaxed) {
            let mut rest = self.rest.lock();
            let now = Instant::now();
            if rest.until.is_some_and(|until| now < until) {
                return Err(self.unreachable(&"it failed a moment ago"));
            }
            // One that is frozen does not fail for some time: what does not answer counts as a failure.
            rest.failures += 1;
            rest.until = Some(now + pause(rest.failures));
        }
        Ok(())
    }

    fn failed(&self) {
        if self.care == Care::Peer {
            let mut rest = self.rest.lock();
            // The requests of a broken connection fail together, which is one failure.
            if rest.until.is_none_or(|until| Instant::now() >= until) || rest.failures == 0 {
                rest.failures += 1;
                rest.until = Some(Instant::now() + pause(rest.failures));
            }
            self.is_failing.store(true, Ordering::Relaxed);
        }
    }

    fn succeeded(&self) {
        if self.is_failing.load(Ordering::Relaxed) {
            *self.rest.lock() = Rest::default();
            self.is_failing.store(false, Ordering::Relaxed);
        }
    }

    /// Where the server listens.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Requests that this instance has on the server now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request as being on the server for as long as the guard lives.
    #[must_use]
    pub fn occupy(self: &Arc<Self>) -> Occupied {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Occupied(Arc::clone(self))
    }

    /// The URI of a method on this server.
    #[must_use]
    pub fn uri(&self, path: &PathAndQuery) -> Uri {
        let mut parts = Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.clone());
        // With all three parts present there is nothing that could be wrong.
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Sends a request and waits for the head of the answer. A request that a closing connection did not
    /// take is sent again on a new one.
    ///
    /// # Errors
    /// [`Unreachable`] if there is no connection, or it broke before the head of the answer.
    pub async fn send(
        self: &Arc<Self>,
        mut request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, Unreachable> {
        self.admit()?;
        for last in [false, true] {
            let mut connection = self.connection().await.inspect_err(|_| self.failed())?;
            match connection.try_send_request(request).await {
                Ok(response) => {
                    self.succeeded();
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !last => request = unsent,
                    Some(_) => {
                        self.failed();
                        return Err(self.unreachable(error.error()));
                    }
                    None => {
                        if is_of_connection(error.error()) {
                            self.failed();
                        }
                        return Err(self.broke_off(error.error()));
                    }
                },
            }
        }
        self.failed();
        Err(self.unreachable(&"the connection closes as soon as it is made"))
    }

    fn unreachable(&self, cause: &dyn fmt::Display) -> Unreachable {
        Unreachable { cause: format!("{}: {cause}", self.target).into(), sent: false }
    }

    /// The failure of a request that was sent.
    #[must_use]
    pub fn broke_off(&self, cause: &dyn fmt::Display) -> Unreachable {
        Unreachable { sent: true, ..self.unreachable(cause) }
    }

    async fn connection(self: &Arc<Self>) -> Result<SendRequest<Outgoing>, Unreachable> {
        let number = worker::current() % self.links.len();
        let link = &self.links[number];
        if let Link::Up(connection) = &*link.borrow()
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        let first = link.send_if_modified(|link| {
            let usable = match link {
                Link::Connecting => true,
                Link::Up(connection) => !connection.is_closed(),
                Link::Down | Link::Failed(_) => false,
            };
            if !usable {
                *link = Link::Connecting;
            }
            !usable
        });
        if first {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.links[number].send_replace(this.connect().await) });
        }
        let mut changes = link.subscribe();
        let link = changes.wait_for(|link| !matches!(link, Link::Connecting)).await;
        match link.as_deref() {
            Ok(Link::Up(connection)) => Ok(connection.clone()),
            Ok(Link::Failed(error)) => Err(error.clone()),
            _ => Err(self.unreachable(&"not connected")),
        }
    }

    async fn connect(&self) -> Link {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.handshake()).await {
            Ok(Ok(connection)) => Link::Up(connection),
            Ok(Err(error)) => Link::Failed(self.unreachable(&error)),
            Err(_) => Link::Failed(self.unreachable(&"no connection within 2 s")),
        }
    }

    async fn handshake(&self) -> Result<SendRequest<Outgoing>, Box<dyn std::error::Error + Send + Sync>> {
        match &self.target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                self.start(stream).await
            }
            Target::Unix(path) => self.start(UnixStream::connect(path).await?).await,
        }
    }

    async fn start<S>(
        &self,
        stream: S,
    ) -> Result<SendRequest<Outgoing>, Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_BYTES);
        if self.care != Care::Runtime {
            builder.keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
        }
        let (connection, driver) = builder.handshake(TokioIo::new(Corked::new(stream))).await?;
        // The driver's end shows in the connection: requests fail, and the next one connects again.
        tokio::spawn(driver);
        Ok(connection)
    }
}

/// How long a peer rests after so many failures in a row.
fn pause(failures: u32) -> Duration {
    FIRST_REST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(10))).min(MAX_REST)
}

/// True if a connection broke, rather than the stream of one request.
fn is_of_connection(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_none_or(|cause| !cause.is_reset())
}

/// A request on a server.
#[derive(Debug)]
pub struct Occupied(Arc<Upstream>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_parsed() {
        assert_eq!("unix:/run/a.sock".parse(), Ok(Target::Unix("/run/a.sock".into())));
        assert_eq!("tcp:localhost:8001".parse(), Ok(Target::Tcp("localhost:8001".into())));
        for text in ["", "unix:", "tcp:8001", "localhost:8001"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_peer_that_fails_is_left_alone_but_for_one_request_after_each_rest() {
        let peer = Upstream::new(Target::Tcp("127.0.0.1:1".into()), Care::Peer, 1);
        assert!(peer.admit().is_ok());
        peer.failed();
        peer.failed();
        assert!(peer.is_resting());
        assert!(peer.admit().is_err());
        assert_eq!(peer.rest.lock().failures, 1);
        peer.rest.lock().until = Some(Instant::now());
        assert!(peer.admit().is_ok());
        assert!(peer.admit().is_err());
        peer.succeeded();
        assert!(!peer.is_resting() && peer.admit().is_ok() && peer.admit().is_ok());
        assert_eq!((pause(1), pause(2), pause(100)), (FIRST_REST, 2 * FIRST_REST, MAX_REST));
    }
}
