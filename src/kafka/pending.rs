//! Where a receipt will be.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::{Receipt, Undelivered};

/// The answer for a waiting request.
pub(super) type Outcome = Result<Receipt, Undelivered>;

/// Where the receipt of an accepted event will be, or is. Dropping it changes nothing: the record lives on.
pub enum Pending {
    Waiting(oneshot::Receiver<Outcome>),
    /// It was committed before this attempt came, or nobody waits any more.
    Decided(Outcome),
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Waiting(answer) => {
                Pin::new(answer).poll(context).map(|done| done.unwrap_or(Err(Undelivered::GivenUp)))
            }
            Self::Decided(outcome) => Poll::Ready(*outcome),
        }
    }
}
