//! The memory that the bodies of requests may take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::status::{Code, Status};

/// When a client may try again that came when there was no memory.
const PAUSE: Duration = Duration::from_millis(500);

/// What all requests may hold, and hold now.
#[derive(Debug)]
pub struct Budget {
    most: usize,
    held: AtomicUsize,
    refused: Arc<AtomicU64>,
}

impl Budget {
    /// A budget of `most` bytes; `refused` counts the requests for which it is not enough.
    #[must_use]
    pub fn new(most: usize, refused: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { most, held: AtomicUsize::new(0), refused })
    }

    /// The bytes that requests hold now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// What one request holds, until it is dropped.
#[derive(Debug)]
pub struct Holding {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Holding {
    /// Holds nothing yet.
    #[must_use]
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Holds `bytes` more.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` if that is more than there is.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Status> {
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before.saturating_add(bytes) <= self.budget.most {
            return Ok(());
        }
        self.shrink(bytes);
        self.budget.refused.fetch_add(1, Ordering::Relaxed);
        let text = format!(
            "the requests that this instance serves take {} of at most {} bytes already; try again",
            before, self.budget.most
        );
        Err(Status { retry_after: Some(PAUSE), ..Status::new(Code::ResourceExhausted, text) })
    }

    /// Holds `bytes` less.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_or_refused_is_free_again() {
        let refused = Arc::new(AtomicU64::new(0));
        let budget = Budget::new(10, Arc::clone(&refused));
        let mut one = Holding::new(&budget);
        let mut other = Holding::new(&budget);
        assert_eq!(one.grow(8), Ok(()));
        let status = other.grow(3).unwrap_err();
        assert_eq!((status.code, status.retry_after), (Code::ResourceExhausted, Some(PAUSE)));
        assert_eq!((budget.held(), refused.load(Ordering::Relaxed)), (8, 1));
        one.shrink(1);
        assert_eq!(other.grow(3), Ok(()));
        drop(one);
        assert_eq!(budget.held(), 3);
        drop(other);
        assert_eq!(budget.held(), 0);
    }
}
