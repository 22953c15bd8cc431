//! What only shows on the wire: the REST port with clients of HTTP/2.

#![allow(clippy::unwrap_used)] // a test may

use _native::plane::{Config, Plane};
use _native::server::Server;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

fn config() -> Config {
    Config {
        instance_id: "self".into(),
        runtime: None,
        grpc_listen: Vec::new(),
        rest_listen: vec!["127.0.0.1:0".into()],
        peer_listen: None,
        shared_listen_grpc: Vec::new(),
        shared_listen_rest: Vec::new(),
        max_message_bytes: 1 << 20,
        max_header_bytes: 8192,
        worker_threads: 1,
        multi_parallelism: 4,
        max_connection_age: None,
        connection_age_grace: None,
        max_in_flight: 100,
        max_in_flight_per_model: 100,
        max_buffered_bytes: 128 << 20,
    }
}

#[test]
fn head_has_the_length_but_not_the_body() {
    let server = Server::start(Plane::new(config()).unwrap()).unwrap();
    let (_, address) = server.bound()[0];
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut client, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("http://{address}/v2/health/live");
        let request = Request::builder().method(Method::HEAD).uri(uri).body(Empty::<Bytes>::new()).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "13");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "");
    });
    server.stop(std::time::Duration::from_secs(1));
}
