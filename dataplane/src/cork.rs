//! Writes of a connection gathered until all tasks that are ready have run.
//!
//! HTTP/2 gives each frame of a body to the socket by itself. Frames of many requests come together in one turn
//! of a worker thread; written at once they cost one system call, and wake the other side once. Large frames are
//! written through, behind what is held.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are held for a connection; the frame that goes beyond is held, too.
const MOST_HELD: usize = 64 << 10;
const BUFFER: usize = MOST_HELD + (17 << 10);
/// From this size on a copy costs more than a system call saves.
const WRITTEN_THROUGH: usize = 8 << 10;
/// How long what is held may take to be written once the connection has ended.
const LINGER: Duration = Duration::from_secs(5);

thread_local! {
    /// A buffer that no connection of this thread uses now.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

#[derive(Debug)]
struct State<S> {
    stream: S,
    held: Vec<u8>,
    /// Bytes of `held` that have been written.
    written: usize,
    /// Why nothing can be written any more.
    failure: Option<io::ErrorKind>,
    /// The connection has ended.
    ended: bool,
    /// The task that writes, while there is nothing to write.
    writer: Option<Waker>,
    /// The connection, while it waits for room.
    waiting: Option<Waker>,
}

impl<S> State<S> {
    fn hold(&mut self, bytes: &[u8]) {
        if self.held.capacity() == 0 {
            self.held = SPARE.take();
            self.held.reserve(BUFFER);
        }
        self.held.extend_from_slice(bytes);
    }

    /// Ready when more can be held.
    fn poll_room(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.failure {
            return Poll::Ready(Err(kind.into()));
        }
        if self.held.len() >= MOST_HELD {
            self.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// A stream that is written to when other tasks have had their turn.
#[derive(Debug)]
pub struct Corked<S>(Arc<Mutex<State<S>>>);

impl<S: AsyncWrite + Unpin> State<S> {
    /// Writes what is held and then `parts`, without copying them; returns how much of them was written. What
    /// the stream does not take, and its errors, are left to the writer.
    fn write_through(&mut self, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> usize {
        let held = self.held.len() - self.written;
        let mut slices: SmallVec<[io::IoSlice<'_>; 8]> = SmallVec::new();
        slices.push(io::IoSlice::new(&self.held[self.written..]));
        slices.extend_from_slice(parts);
        let written = match Pin::new(&mut self.stream).poll_write_vectored(context, &slices) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        drop(slices);
        self.written += written.min(held);
        // The stream may have noted this task instead of the writer.
        self.wake_writer();
        written.saturating_sub(held)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Corked<S> {
    /// Takes a stream over, and spawns the task that writes to it.
    pub fn new(stream: S) -> Self {
        let state = Arc::new(Mutex::new(State {
            stream,
            held: Vec::new(),
            written: 0,
            failure: None,
            ended: false,
            writer: None,
            waiting: None,
        }));
        tokio::spawn(write(Arc::clone(&state)));
        Self(state)
    }
}

async fn write<S: AsyncWrite + Unpin>(state: Arc<Mutex<State<S>>>) {
    std::future::poll_fn(|context| poll_write(&state, context)).await;
    // The connection has ended: what it left is written, but not for ever.
    let rest = std::future::poll_fn(|context| poll_written(&mut state.lock(), context));
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Writes whenever there is something; ready when the connection has ended.
fn poll_write<S: AsyncWrite + Unpin>(state: &Mutex<State<S>>, context: &mut Context<'_>) -> Poll<()> {
    let state = &mut *state.lock();
    if state.ended {
        return Poll::Ready(());
    }
    if poll_written(state, context).is_ready()
        && let Some(waiting) = state.waiting.take()
    {
        waiting.wake();
    }
    state.writer = Some(context.waker().clone());
    Poll::Pending
}

/// Ready when all that was held has been written, or cannot be.
fn poll_written<S: AsyncWrite + Unpin>(state: &mut State<S>, context: &mut Context<'_>) -> Poll<()> {
    while state.written < state.held.len() {
        match ready!(Pin::new(&mut state.stream).poll_write(context, &state.held[state.written..])) {
            Ok(0) => state.failure = Some(io::ErrorKind::WriteZero),
            Ok(count) => state.written += count,
            Err(error) => state.failure = Some(error.kind()),
        }
        if state.failure.is_some() {
            break;
        }
    }
    state.written = 0;
    let mut buffer = std::mem::take(&mut state.held);
    if buffer.capacity() > 0 {
        buffer.clear();
        SPARE.set(buffer);
    }
    Poll::Ready(())
}

impl<S> Drop for Corked<S> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        state.wake_writer();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.lock();
        ready!(state.poll_room(context))?;
        if parts.iter().map(|part| part.len()).sum::<usize>() >= WRITTEN_THROUGH {
            let passed = state.write_through(context, parts);
            if passed > 0 {
                return Poll::Ready(Ok(passed));
            }
        }
        for part in parts {
            state.hold(part);
        }
        state.wake_writer();
        Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is held is written without being asked.
        Poll::Ready(self.0.lock().failure.map_or(Ok(()), |kind| Err(kind.into())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.lock();
        if let Some(kind) = state.failure {
            return Poll::Ready(Err(kind.into()));
        }
        if !state.held.is_empty() {
            state.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut state.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn everything_arrives_in_order_however_slow_the_reader() {
        let (near, mut far) = duplex(1000);
        let expected: Vec<u8> = (0..400_000_u32).map(|number| (number % 251) as u8).collect();
        let sent = expected.clone();
        let sender = tokio::spawn(async move {
            let mut corked = Corked::new(near);
            let (small, large) = sent.split_at(200_000);
            for part in small.chunks(7001).chain(large.chunks(20_000)) {
                corked.write_all(part).await.unwrap();
                assert!(corked.0.lock().held.len() <= MOST_HELD + 20_000);
            }
            corked.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, expected);
        sender.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_held_when_the_connection_ends_is_written() {
        let (near, mut far) = duplex(10);
        let mut corked = Corked::new(near);
        corked.write_all(&[7; 1000]).await.unwrap();
        drop(corked);
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, [7; 1000]);
    }

    #[tokio::test]
    async fn a_stream_that_breaks_is_told_to_the_connection() {
        let (near, far) = duplex(10);
        let mut corked = Corked::new(near);
        drop(far);
        corked.write_all(&[7; 1000]).await.unwrap();
        tokio::task::yield_now().await;
        assert!(corked.write_all(&[7]).await.is_err());
        assert!(corked.flush().await.is_err());
    }
}
