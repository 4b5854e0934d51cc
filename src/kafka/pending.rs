//! The place where a receipt will appear.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::{Receipt, Undelivered};

/// The receipt, or the reason why there is none.
pub(super) type Outcome = Result<Receipt, Undelivered>;

/// A future of an accepted event's receipt. Its drop changes nothing: the record lives on.
pub enum Pending {
    /// The record is under way.
    Waiting(oneshot::Receiver<Outcome>),
    /// The record was committed before this attempt came, or the instance stops waiting for receipts.
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
