//! The threads that move bytes. A connection belongs to one of them, and so do all its requests: the calls of
//! servers go over connections of the same thread, and nothing has to wake another one.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// The number of the worker that runs this; 0 elsewhere.
#[must_use]
pub fn current() -> usize {
    NUMBER.get()
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    stop: oneshot::Sender<Duration>,
    thread: JoinHandle<()>,
}

/// All workers of an instance.
#[derive(Debug)]
pub struct Workers(Vec<Worker>);

/// Counts a connection at its worker.
#[derive(Debug)]
pub struct Place {
    /// Where the connection is served.
    pub handle: Handle,
    connections: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What accepts connections knows of the workers.
#[derive(Clone, Debug)]
pub struct Places(Arc<[(Handle, Arc<AtomicUsize>)]>);

impl Places {
    /// A place at the worker with the fewest connections.
    ///
    /// # Panics
    /// Never: there is at least one worker.
    #[must_use]
    pub fn take(&self) -> Place {
        let start = fastrand::usize(..self.0.len());
        let places = self.0[start..].iter().chain(&self.0[..start]);
        let least = places.min_by_key(|(_, connections)| connections.load(Ordering::Relaxed));
        let (handle, connections) = least.unwrap_or(&self.0[0]);
        connections.fetch_add(1, Ordering::Relaxed);
        Place { handle: handle.clone(), connections: Arc::clone(connections) }
    }
}

impl Workers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// If the system gives no more threads or files.
    pub fn start(count: usize) -> io::Result<Self> {
        (0..count.max(1)).map(start).collect::<io::Result<_>>().map(Self)
    }

    /// What runs on the first worker.
    #[must_use]
    pub fn first(&self) -> &Handle {
        &self.0[0].handle
    }

    /// Where connections may be served.
    #[must_use]
    pub fn places(&self) -> Places {
        Places(self.0.iter().map(|worker| (worker.handle.clone(), Arc::clone(&worker.connections))).collect())
    }

    /// Ends the threads; what runs on them may take until `grace` to notice. Blocks.
    pub fn stop(self, grace: Duration) {
        let threads: Vec<_> = self
            .0
            .into_iter()
            .map(|worker| {
                // A worker that is gone needs not be told.
                let _ = worker.stop.send(grace);
                worker.thread
            })
            .collect();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn start(number: usize) -> io::Result<Worker> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name(format!("modelmesh-bytes-{number}")).spawn(move || {
        NUMBER.set(number);
        let grace = runtime.block_on(stopped).unwrap_or_default();
        runtime.shutdown_timeout(grace);
    })?;
    Ok(Worker { handle, connections: Arc::default(), stop, thread })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_and_know_their_worker() {
        let workers = Workers::start(2).unwrap();
        let places = workers.places();
        let taken: Vec<_> = (0..4).map(|_| places.take()).collect();
        let mut numbers: Vec<_> = taken
            .iter()
            .map(|place| {
                let (sender, receiver) = std::sync::mpsc::channel();
                place.handle.spawn(async move { sender.send(current()) });
                receiver.recv().unwrap()
            })
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 0, 1, 1]);
        drop(taken);
        assert!(places.0.iter().all(|(_, connections)| connections.load(Ordering::Relaxed) == 0));
        workers.stop(Duration::ZERO);
    }
}
