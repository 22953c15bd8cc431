//! What the byte path has for the policy: one queue, and a socket that is readable while there is something
//! in it.
//!
//! The policy runs on one thread, the interpreter's. It waits for the socket in its own event loop and takes
//! everything at once, so no thread of the byte path ever waits for the interpreter's lock.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::miss::Ticket;
use crate::outgoing::Reply;
use crate::policy::Asked;

/// Something for the policy.
#[derive(Debug)]
pub enum Event {
    /// Requests found no usable copy.
    Miss(Ticket),
    /// A call that the policy itself answers.
    Asked(Asked),
    /// Nobody waits for the answer to this call any more.
    Gone(u64),
    /// A call of the policy has ended.
    Reply(Reply),
}

/// The queue. Any thread puts events in; one takes them out.
#[derive(Debug)]
pub struct Inbox {
    events: Mutex<Vec<Event>>,
    bell: UnixStream,
    ear: UnixStream,
    numbers: AtomicU64,
    closed: watch::Sender<bool>,
}

impl Inbox {
    /// An empty queue.
    ///
    /// # Errors
    /// If the process may open no more files.
    pub fn new() -> io::Result<Arc<Self>> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok(Arc::new(Self {
            events: Mutex::default(),
            bell,
            ear,
            numbers: AtomicU64::new(1),
            closed: watch::Sender::new(false),
        }))
    }

    /// A number for a call, different from all others.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts an event in.
    pub fn push(&self, event: Event) {
        let mut events = self.events.lock();
        events.push(event);
        let first = events.len() == 1;
        drop(events);
        if first {
            // A socket that takes no more is readable, which is all that is wanted.
            let _ = (&self.bell).write(&[0]);
        }
    }

    /// Takes all events out.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        // Before the events: what is put in after them rings again.
        let mut rung = [0; 64];
        while matches!((&self.ear).read(&mut rung), Ok(len) if len == rung.len()) {}
        std::mem::take(&mut *self.events.lock())
    }

    /// What becomes readable when there is something to take.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.ear.as_raw_fd()
    }

    /// The policy answers no more: who asks it, or waits for it, is refused.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// True once closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until it is closed.
    pub async fn closed(&self) {
        // The sender is part of this queue, so it is there.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(inbox: &Inbox) -> bool {
        let mut byte = [0];
        // `peek` of a socket is not stable: reading one byte and ringing again is the same.
        let readable = matches!((&inbox.ear).read(&mut byte), Ok(1));
        if readable {
            let _ = (&inbox.bell).write(&byte).unwrap();
        }
        readable
    }

    #[test]
    fn it_is_readable_while_there_is_something_in_it() {
        let inbox = Inbox::new().unwrap();
        assert!(!is_readable(&inbox));
        inbox.push(Event::Gone(1));
        inbox.push(Event::Gone(2));
        assert!(is_readable(&inbox));
        let taken = inbox.take();
        assert!(matches!(taken[..], [Event::Gone(1), Event::Gone(2)]));
        assert!(!is_readable(&inbox));
        inbox.push(Event::Gone(3));
        assert!(is_readable(&inbox));
    }

    #[test]
    fn no_event_is_lost_between_threads() {
        const EACH: u64 = 20_000;
        let inbox = Inbox::new().unwrap();
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let inbox = Arc::clone(&inbox);
                std::thread::spawn(move || (0..EACH).for_each(|number| inbox.push(Event::Gone(number))))
            })
            .collect();
        inbox.ear.set_nonblocking(false).unwrap();
        let mut taken = 0;
        while taken < 4 * EACH {
            let mut byte = [0];
            (&inbox.ear).read_exact(&mut byte).unwrap(); // blocks for ever if a ring is missed
            inbox.ear.set_nonblocking(true).unwrap();
            taken += inbox.take().len() as u64;
            inbox.ear.set_nonblocking(false).unwrap();
        }
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(taken, 4 * EACH);
    }
}
