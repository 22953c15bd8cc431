//! The statistics over HTTP: `GET /stats`, `POST /reset`, `POST /purge`.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::grpc::lock;
use crate::server::Echo;

/// More than the head of any request here.
const MAX_HEAD: usize = 4096;

/// Serves `address`, `host:port`, from a task of its own; returns the address as bound.
///
/// # Errors
/// What binding fails with.
pub async fn listen(echo: Arc<Echo>, address: &str) -> io::Result<String> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let echo = Arc::clone(&echo);
            // A client that goes away before its answer needs none.
            tokio::spawn(async move { answer(&echo, connection).await });
        }
    });
    Ok(bound)
}

async fn answer(echo: &Echo, mut connection: TcpStream) -> io::Result<()> {
    let mut head = Vec::with_capacity(MAX_HEAD);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > MAX_HEAD || connection.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let (status, body) = match head.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["GET", "/stats"] => ("200 OK", stats(echo)?),
        ["POST", "/reset"] => {
            let before = stats(echo)?;
            lock(&echo.memory).reset();
            ("200 OK", before)
        }
        ["POST", "/purge"] => {
            lock(&echo.memory).purge();
            ("200 OK", stats(echo)?)
        }
        _ => ("404 Not Found", r#"{"error": "GET /stats, POST /reset or POST /purge"}"#.to_owned()),
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    connection.write_all(answer.as_bytes()).await?;
    connection.shutdown().await
}

fn stats(echo: &Echo) -> io::Result<String> {
    Ok(serde_json::to_string(&lock(&echo.memory).stats())?)
}
