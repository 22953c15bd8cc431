//! A panic ends one request, not the process and not silently.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::log;

pin_project! {
    /// A future whose panic becomes the output of `recover`, and a line in the log.
    pub struct Guarded<F, R> {
        #[pin]
        work: F,
        recover: Option<R>,
    }
}

/// Guards `work`; after a panic the output is that of `recover`.
pub fn guarded<F, R>(work: F, recover: R) -> Guarded<F, R>
where
    F: Future,
    R: FnOnce() -> F::Output,
{
    Guarded { work, recover: Some(recover) }
}

impl<F, R> Future for Guarded<F, R>
where
    F: Future,
    R: FnOnce() -> F::Output,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        match catch_unwind(AssertUnwindSafe(|| this.work.poll(context))) {
            Ok(poll) => poll,
            Err(panic) => {
                log::error("panic while serving a request", describe(&*panic));
                match this.recover.take() {
                    Some(recover) => Poll::Ready(recover()),
                    None => Poll::Pending,
                }
            }
        }
    }
}

fn describe(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_the_recovery() {
        let outcome = guarded(async { panic!("on purpose") }, || 7).await;
        assert_eq!(outcome, 7);
    }
}
