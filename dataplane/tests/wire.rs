//! What clients and peers do on the wire that no gRPC library would do: cut frames, floods, silence.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use _native::plane::{Config, Plane};
use _native::rpcs::Methods;
use _native::server::{Port, Server};
use _native::table::{Copies, PeerCopy};
use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{HeaderMap, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const MODEL: &str = "m";
const INFER: &str = "/test.Service/Infer";
/// A gRPC message, field 1 of which is the model.
const MESSAGE: &[u8] = b"\0\0\0\0\x03\x0a\x01m";

fn config() -> Config {
    Config {
        instance_id: "self".into(),
        runtime: None,
        grpc_listen: vec!["127.0.0.1:0".into()],
        rest_listen: Vec::new(),
        peer_listen: None,
        shared_listen_grpc: Vec::new(),
        shared_listen_rest: Vec::new(),
        max_message_bytes: 1 << 20,
        max_header_bytes: 8192,
        worker_threads: 2,
        multi_parallelism: 4,
        max_connection_age: None,
        connection_age_grace: None,
        max_in_flight: 1000,
        max_in_flight_per_model: 1000,
        max_buffered_bytes: 128 << 20,
    }
}

/// An instance with its server, whose model is routed to where `copies` says.
struct Instance {
    server: Option<Server>,
    plane: Arc<Plane>,
    address: SocketAddr,
}

impl Instance {
    fn start(config: Config, copies: impl FnOnce(&Plane) -> Copies) -> Self {
        let plane = Plane::new(config).unwrap();
        let copies = copies(&plane);
        plane.table.update(1, [(MODEL, Some(copies))], []);
        let server = Server::start(Arc::clone(&plane)).unwrap();
        let mut instance = Self { server: Some(server), plane, address: SocketAddr::from(([0; 4], 0)) };
        instance.address = instance.port(Port::Grpc);
        instance
    }

    fn port(&self, port: Port) -> SocketAddr {
        self.server.as_ref().unwrap().bound().iter().find(|(bound, _)| *bound == port).unwrap().1
    }

    async fn before(config: Config) -> Self {
        let config = Config { runtime: Some(format!("tcp:{}", echo().await).parse().unwrap()), ..config };
        Self::start(config, |_| Copies { local: true, ..Copies::default() })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.server.take().unwrap().stop(Duration::from_millis(100));
    }
}

/// A model server that answers each call with the message it got.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let mut received = Vec::new();
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                            received.extend_from_slice(&data);
                        }
                        let head = http::Response::builder().header("content-type", "application/grpc");
                        let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), false) else {
                            return;
                        };
                        let _ = stream.send_data(received.into(), false);
                        let _ = stream.send_trailers(HeaderMap::from_iter([(
                            http::HeaderName::from_static("grpc-status"),
                            http::HeaderValue::from_static("0"),
                        )]));
                    });
                }
            });
        }
    });
    address
}

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

fn request(address: SocketAddr) -> http::request::Builder {
    Request::post(format!("http://{address}{INFER}")).header("content-type", "application/grpc")
}

/// Calls with a body in pieces; returns the gRPC status and the body of the answer.
async fn call(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    pieces: &[&[u8]],
) -> Result<(String, Vec<u8>), h2::Error> {
    let mut client = client.clone().ready().await?;
    let (response, mut stream) = client.send_request(request, false)?;
    for (index, piece) in pieces.iter().enumerate() {
        stream.send_data(Bytes::copy_from_slice(piece), index + 1 == pieces.len())?;
    }
    let (head, mut body) = response.await?.into_parts();
    let mut received = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        received.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    let status = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status"));
    Ok((
        status.map_or_else(|| head.status.to_string(), |status| status.to_str().unwrap().to_owned()),
        received,
    ))
}

fn named(address: SocketAddr) -> Request<()> {
    request(address).header("mm-model-id", MODEL).body(()).unwrap()
}

/// A call of another client succeeds, and soon.
async fn others_are_served(address: SocketAddr) {
    let begin = Instant::now();
    let served = async {
        for _ in 0..20 {
            let client = connect(address).await;
            assert_eq!(
                call(&client, named(address), &[MESSAGE]).await.unwrap(),
                ("0".into(), MESSAGE.to_vec())
            );
        }
    };
    tokio::time::timeout(Duration::from_secs(10), served).await.expect("others are served");
    println!("others were served within {:?}", begin.elapsed());
}

/// The preface and empty settings of HTTP/2.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn a_message_in_single_bytes_arrives() {
    let instance = Instance::before(config()).await;
    let client = connect(instance.address).await;
    let pieces: Vec<_> = MESSAGE.chunks(1).collect();
    let answer = call(&client, named(instance.address), &pieces).await.unwrap();
    assert_eq!(answer, ("0".into(), MESSAGE.to_vec()));
}

#[tokio::test]
async fn a_stream_in_odd_pieces_arrives_whole() {
    let instance = Instance::before(config()).await;
    let client = connect(instance.address).await;
    let whole = MESSAGE.repeat(100);
    for size in [1, 3, 7, 13, 500] {
        let pieces: Vec<_> = whole.chunks(size).collect();
        assert_eq!(
            call(&client, named(instance.address), &pieces).await.unwrap(),
            ("0".into(), whole.clone()),
            "{size}"
        );
    }
}

#[tokio::test]
async fn a_body_that_ends_inside_a_message_is_refused() {
    let instance = Instance::before(config()).await;
    let client = connect(instance.address).await;
    for pieces in [&[&MESSAGE[..6]][..], &[MESSAGE, &MESSAGE[..4]]] {
        assert_eq!(call(&client, named(instance.address), pieces).await.unwrap().0, "3");
    }
}

#[tokio::test]
async fn a_message_that_is_read_but_compressed_in_an_unknown_way_is_refused() {
    let config = Config { runtime: Some(format!("tcp:{}", echo().await).parse().unwrap()), ..config() };
    let instance = Instance::start(config, |plane| {
        plane.methods.store(Arc::new(Methods::new([(INFER.into(), vec![1])], false)));
        Copies { local: true, ..Copies::default() }
    });
    let client = connect(instance.address).await;
    let compressed = |encoding: &str| {
        request(instance.address)
            .header("mm-model-id", MODEL)
            .header("grpc-encoding", encoding)
            .body(())
            .unwrap()
    };
    for (encoding, expected) in [("zstd", "12"), ("gzip", "3"), ("identity", "3")] {
        let answer = call(&client, compressed(encoding), &[b"\x01\0\0\0\x04abcd"]).await.unwrap();
        assert_eq!(answer.0, expected, "{encoding}");
    }
    assert_eq!(call(&client, compressed("zstd"), &[MESSAGE]).await.unwrap().0, "0");
}

#[tokio::test]
async fn rapid_resets_harm_nobody_else() {
    let instance = Instance::before(config()).await;
    for _ in 0..20 {
        let client = connect(instance.address).await;
        for _ in 0..2000 {
            let Ok(mut ready) = client.clone().ready().await else { break };
            let Ok((_, mut stream)) = ready.send_request(named(instance.address), false) else { break };
            stream.send_reset(h2::Reason::CANCEL);
        }
    }
    others_are_served(instance.address).await;
}

#[tokio::test]
async fn an_endless_header_block_is_cut_off() {
    let instance = Instance::before(config()).await;
    let mut stream = TcpStream::connect(instance.address).await.unwrap();
    stream.write_all(OPENING).await.unwrap();
    // HEADERS without END_HEADERS, then CONTINUATION without end; a literal header of 16 KiB in each.
    stream.write_all(&frame(1, 0, 1, &[])).await.unwrap();
    let header = [&[0, 1, b'a', 0x7f, 0x81, 0x7f][..], &[b'x'; 16_256]].concat();
    let mut sent = 0;
    let flood = async {
        while stream.write_all(&frame(9, 0, 1, &header)).await.is_ok() {
            sent += header.len();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), flood).await.expect("the connection is closed");
    // What the kernel buffers is sent before the end shows.
    assert!(sent < 32 << 20, "{sent}");
    others_are_served(instance.address).await;
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused_and_the_connection_lives() {
    let instance = Instance::before(config()).await;
    let client = connect(instance.address).await;
    let large = request(instance.address).header("mm-model-id", MODEL).header("x-large", "x".repeat(9000));
    let refused = call(&client, large.body(()).unwrap(), &[MESSAGE]).await;
    assert!(
        refused.as_ref().is_err() || refused.as_ref().is_ok_and(|(status, _)| status.starts_with("431")),
        "{refused:?}"
    );
    assert_eq!(call(&client, named(instance.address), &[MESSAGE]).await.unwrap().0, "0");
}

#[tokio::test]
async fn clients_that_stop_in_the_middle_harm_nobody_else() {
    let instance = Instance::before(config()).await;
    let mut silent = Vec::new();
    for length in 0..200 {
        let mut stream = TcpStream::connect(instance.address).await.unwrap();
        stream.write_all(&OPENING[..length % OPENING.len()]).await.unwrap();
        silent.push(stream);
    }
    let mut unfinished = Vec::new();
    for _ in 0..50 {
        let mut client = connect(instance.address).await.ready().await.unwrap();
        let (response, mut stream) = client.send_request(named(instance.address), false).unwrap();
        stream.send_data(Bytes::copy_from_slice(&MESSAGE[..6]), false).unwrap();
        unfinished.push((client, response, stream));
    }
    others_are_served(instance.address).await;
}

#[tokio::test]
async fn more_requests_than_the_bound_are_refused() {
    let instance = Instance::before(Config { max_in_flight: 5, ..config() }).await;
    let client = connect(instance.address).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut client = client.clone().ready().await.unwrap();
        open.push(client.send_request(named(instance.address), false).unwrap());
    }
    assert_eq!(call(&client, named(instance.address), &[MESSAGE]).await.unwrap().0, "8");
    drop(open);
    let served = async {
        while call(&client, named(instance.address), &[MESSAGE]).await.unwrap().0 != "0" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), served).await.unwrap();
}

#[tokio::test]
async fn an_old_connection_is_closed_and_its_requests_end() {
    let age = Config {
        max_connection_age: Some(Duration::from_millis(300)),
        connection_age_grace: Some(Duration::from_secs(5)),
        ..config()
    };
    let instance = Instance::before(age).await;
    let stream = TcpStream::connect(instance.address).await.unwrap();
    let (client, connection) = client::handshake(stream).await.unwrap();
    let closed = tokio::spawn(connection);
    let mut ready = client.clone().ready().await.unwrap();
    let (response, mut body) = ready.send_request(named(instance.address), false).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    body.send_data(Bytes::from_static(MESSAGE), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), MESSAGE);
    drop((body, client, ready));
    assert!(tokio::time::timeout(Duration::from_secs(5), closed).await.is_ok());
}

#[tokio::test]
async fn a_frozen_peer_is_noticed_and_then_left_alone() {
    // It takes connections and bytes, and never says anything.
    let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = frozen.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = frozen.accept().await.unwrap();
            tokio::spawn(
                async move { while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} },
            );
        }
    });
    let there = echo().await;
    let instance = Instance::start(config(), |plane| {
        let peer = |name: &str, address: SocketAddr| PeerCopy {
            instance: name.into(),
            upstream: plane.peer(&address.to_string()),
        };
        Copies { local: false, peers: Box::new([peer("frozen", address), peer("there", there)]) }
    });
    let client = connect(instance.address).await;
    let begin = Instant::now();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (client, address) = (client.clone(), instance.address);
            tokio::spawn(async move { call(&client, named(address), &[MESSAGE]).await.unwrap().0 })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), "0");
    }
    // A ping each half second, and a second and a half for its answer.
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    // From now on one request after each rest finds the peer frozen, and the rests grow.
    let begin = Instant::now();
    let (mut slow, mut served) = (0, 0);
    while begin.elapsed() < Duration::from_secs(4) {
        let once = call(&client, named(instance.address), &[MESSAGE]);
        match tokio::time::timeout(Duration::from_millis(500), once).await {
            Ok(answer) => served += u32::from(answer.unwrap().0 == "0"),
            Err(_) => slow += 1,
        }
    }
    assert!(slow <= 6 && served > 5 * slow, "{slow} slow, {served} served");
}

#[tokio::test]
async fn headers_that_a_client_may_send_also_reach_a_copy_on_a_peer() {
    let peer_listen = Some("127.0.0.1:0".into());
    let there = Instance::before(Config { peer_listen, ..config() }).await;
    let here = Instance::start(config(), |plane| {
        let upstream = plane.peer(&there.port(Port::Peer).to_string());
        Copies { local: false, peers: Box::new([PeerCopy { instance: "there".into(), upstream }]) }
    });
    let client = connect(here.address).await;
    let mut refused = 0;
    for length in (7000..8200).step_by(20) {
        let request = request(here.address).header("mm-model-id", MODEL).header("x", "a".repeat(length));
        let (status, _) = call(&client, request.body(()).unwrap(), &[MESSAGE]).await.unwrap();
        // What is too much, this instance refuses itself.
        assert!(status == "0" || status.starts_with("431"), "{length}: {status}");
        refused += u32::from(status != "0");
    }
    assert!((1..50).contains(&refused), "{refused}");
}

#[tokio::test]
async fn the_memory_for_bodies_has_a_bound_and_is_free_again() {
    let small = Config { max_message_bytes: 1 << 16, max_buffered_bytes: 0, ..config() };
    let instance = Instance::before(small).await;
    let client = connect(instance.address).await;
    let held = || instance.plane.buffered.held();
    let mut slow = Vec::new();
    // Two clients that have sent nearly all of the largest message, and stop there.
    for _ in 0..2 {
        let other = connect(instance.address).await;
        let (response, mut stream) =
            other.clone().ready().await.unwrap().send_request(named(instance.address), false).unwrap();
        let prefix = [&[0][..], &(1_u32 << 16).to_be_bytes()].concat();
        stream.send_data([&prefix[..], &vec![7; 65_000]].concat().into(), false).unwrap();
        slow.push((other, response, stream));
    }
    while held() < 130_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let large = [&b"\0\0\0\x80\0"[..], &vec![7; 0x8000]].concat();
    // RESOURCE_EXHAUSTED; a message for which there is room is served.
    assert_eq!(call(&client, named(instance.address), &[&large]).await.unwrap().0, "8");
    assert_eq!(call(&client, named(instance.address), &[MESSAGE]).await.unwrap().0, "0");
    assert!(instance.plane.metrics.text().contains("modelmesh_rejected_requests_total 1\n"));
    drop(slow);
    while held() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(call(&client, named(instance.address), &[&large]).await.unwrap().0, "0");
}
