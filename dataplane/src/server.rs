//! Listeners and connections: opening ports, accepting, and closing without dropping requests.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::body::Answer;
use crate::cork::Corked;
use crate::guard::guarded;
use crate::log;
use crate::plane::Plane;
use crate::status::{Code, Status};
use crate::worker::{Places, Workers};
use crate::{rest, service};

const BACKLOG: i32 = 1024;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Streams that one client may have open on one connection.
const MAX_STREAMS: u32 = 1000;
/// A client that answers no ping for this long is gone.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A client of HTTP/1 sends the head of its next request within this, or loses the connection.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);
/// What an instance adds to the headers of a client when it sends a request on: the id of the model, twice.
const HOP_HEADER_BYTES: u32 = 4096;
/// After accept fails (no file descriptors left), others may free some within this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// After the grace period, requests that wait for a model are failed, and their answers sent within this.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Who is served at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// gRPC clients.
    Grpc,
    /// REST clients.
    Rest,
    /// Other instances.
    Peer,
}

impl Port {
    /// The word for it in messages and in the Python face.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Rest => "rest",
            Self::Peer => "peer",
        }
    }
}

/// The servers of one instance, and the threads they run on.
#[derive(Debug)]
pub struct Server {
    plane: Arc<Plane>,
    workers: Workers,
    /// Becomes true when all listeners close.
    stop: watch::Sender<bool>,
    /// Becomes true when the shared listeners close.
    unshare: Mutex<Option<watch::Sender<bool>>>,
    bound: Vec<(Port, SocketAddr)>,
    /// Becomes true when connections close; each has a receiver for as long as it lives.
    drain: watch::Sender<bool>,
}

impl Server {
    /// Opens all ports but the shared ones, and serves.
    ///
    /// # Errors
    /// If a port cannot be opened; the error names the address.
    pub fn start(plane: Arc<Plane>) -> io::Result<Self> {
        let config = &plane.config;
        let mut listeners = Vec::new();
        for (port, addresses) in [(Port::Grpc, &config.grpc_listen), (Port::Rest, &config.rest_listen)] {
            for address in addresses {
                listeners.push((port, listen(port, address, false)?));
            }
        }
        if let Some(address) = &config.peer_listen {
            listeners.push((Port::Peer, listen(Port::Peer, address, false)?));
        }
        let bound = listeners
            .iter()
            .map(|(port, listener)| Ok((*port, listener.local_addr()?)))
            .collect::<io::Result<_>>()?;
        log::panics();
        let workers = Workers::start(config.worker_threads)?;
        // Set once: a byte path is started once.
        let _ = plane.executor.set(workers.first().clone());
        let server = Self {
            plane,
            workers,
            stop: watch::Sender::new(false),
            unshare: Mutex::new(None),
            bound,
            drain: watch::Sender::new(false),
        };
        for (port, listener) in listeners {
            server.accept(port, listener, server.stop.subscribe())?;
        }
        Ok(server)
    }

    /// The ports that [`Server::start`] opened.
    #[must_use]
    pub fn bound(&self) -> &[(Port, SocketAddr)] {
        &self.bound
    }

    /// Opens or closes the shared ports, and answers health checks accordingly.
    ///
    /// # Errors
    /// If a shared port cannot be opened.
    pub fn set_ready(&self, ready: bool) -> io::Result<()> {
        let mut unshare = self.unshare.lock();
        if ready && unshare.is_none() {
            let config = &self.plane.config;
            let mut listeners = Vec::new();
            for (port, addresses) in
                [(Port::Grpc, &config.shared_listen_grpc), (Port::Rest, &config.shared_listen_rest)]
            {
                for address in addresses {
                    listeners.push((port, listen(port, address, true)?));
                }
            }
            let sender = watch::Sender::new(false);
            for (port, listener) in listeners {
                self.accept(port, listener, sender.subscribe())?;
            }
            *unshare = Some(sender);
        } else if !ready && let Some(sender) = unshare.take() {
            sender.send_replace(true);
        }
        self.plane.ready.store(ready, Ordering::Relaxed);
        Ok(())
    }

    fn accept(
        &self,
        port: Port,
        listener: std::net::TcpListener,
        stop: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let first = self.workers.first();
        let _inside = first.enter();
        let listener = TcpListener::from_std(listener)?;
        let accepting = Accepting {
            port,
            plane: Arc::clone(&self.plane),
            places: self.workers.places(),
            drain: self.drain.subscribe(),
        };
        first.spawn(accepting.accept(listener, stop));
        Ok(())
    }

    /// Closes the ports, lets requests end for at most `grace`, and ends the threads. Blocks.
    pub fn stop(self, grace: Duration) {
        let Self { plane, workers, stop, unshare, drain, .. } = self;
        plane.ready.store(false, Ordering::Relaxed);
        stop.send_replace(true);
        if let Some(sender) = unshare.into_inner() {
            sender.send_replace(true);
        }
        drop(stop);
        drain.send_replace(true);
        let (done, ended) = std::sync::mpsc::channel();
        let closing = Arc::clone(&plane);
        workers.first().spawn(async move {
            if tokio::time::timeout(grace, drain.closed()).await.is_err() {
                close(&closing);
                if tokio::time::timeout(LAST_WORDS, drain.closed()).await.is_err() {
                    log::error("requests are broken off", "they did not end within the grace period");
                }
            }
            // The other side waits.
            let _ = done.send(());
        });
        let _ = ended.recv();
        close(&plane);
        workers.stop(Duration::from_millis(100));
    }
}

/// Refuses what waits for the policy, now and from now on.
fn close(plane: &Plane) {
    plane.inbox.close();
    plane.misses.fail_all(&Status::unavailable("this instance is shutting down"));
}

fn listen(port: Port, address: &str, shared: bool) -> io::Result<std::net::TcpListener> {
    open(address, shared).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "; stop the process that listens there, or choose another port",
            _ => "",
        };
        let text = format!("cannot listen on {address} for {} requests: {error}{advice}", port.name());
        io::Error::new(error.kind(), text)
    })
}

fn open(address: &str, shared: bool) -> io::Result<std::net::TcpListener> {
    let address = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address"))?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// What a listener needs to serve its connections.
struct Accepting {
    port: Port,
    plane: Arc<Plane>,
    places: Places,
    drain: watch::Receiver<bool>,
}

impl Accepting {
    async fn accept(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => self.serve(stream),
                Err(error) => {
                    log::error("cannot accept a connection", &error.to_string());
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, stream: std::net::TcpStream) {
        let (plane, port, drain) = (Arc::clone(&self.plane), self.port, self.drain.clone());
        let counted = self.places.take();
        let handle = counted.handle.clone();
        handle.spawn(async move {
            let _counted = counted;
            match TcpStream::from_std(stream) {
                Ok(stream) => connection(stream, port, plane, drain).await,
                Err(error) => log::error("cannot serve a connection", &error.to_string()),
            }
        });
    }
}

/// Serves one connection to its end. A broken one concerns its client, who knows.
async fn connection(stream: TcpStream, port: Port, plane: Arc<Plane>, mut drain: watch::Receiver<bool>) {
    // A connection that is gone already shows in its first read.
    let _ = stream.set_nodelay(true);
    let added = if port == Port::Peer { HOP_HEADER_BYTES } else { 0 };
    let max_header_bytes = plane.config.max_header_bytes.saturating_add(added);
    let age = plane.config.max_connection_age.filter(|_| port == Port::Grpc);
    let grace = plane.config.connection_age_grace;
    let handler = service_fn(move |request| handle(Arc::clone(&plane), port, request));
    let builder = builder(port, max_header_bytes);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(Corked::new(stream)), handler));
    let aged = tokio::select! {
        _ = connection.as_mut() => return,
        _ = drain.wait_for(|drain| *drain) => false,
        () = sleep(age.map(jittered)) => true,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = sleep(grace.filter(|_| aged)) => {}
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// Within a tenth of the age, so that connections that began together do not end together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * fastrand::f64())
}

fn builder(port: Port, max_header_bytes: u32) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(port == Port::Rest)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(max_header_bytes)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    if port == Port::Rest {
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
        builder
    } else {
        builder.http2_only()
    }
}

async fn handle(
    plane: Arc<Plane>,
    port: Port,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let internal = || Status::new(Code::Internal, "a defect of the byte path; its log has the details");
    // On the heap, since hyper and tokio move what they are given several times.
    let response = match port {
        Port::Grpc => {
            guarded(Box::pin(service::client(plane, request)), || service::failed(&internal())).await
        }
        Port::Peer => guarded(Box::pin(service::peer(plane, request)), || service::failed(&internal())).await,
        Port::Rest => guarded(Box::pin(rest::serve(plane, request)), || rest::failed(&internal())).await,
    };
    Ok(response)
}
