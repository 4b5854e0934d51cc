//! Who is at the other end of a connection.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::tls::NotAllowed;

/// Who is at the other end of a connection.
pub struct Peer {
    pub connection: u64,
    /// When the connection was accepted: a sender's clock runs from there for its first request.
    pub accepted_at: Instant,
    /// The allowed name of its certificate.
    pub sender: Result<Arc<str>, NotAllowed>,
    /// Over HTTP/1.1 each answer from now on says that it is the connection's last.
    pub closing: Arc<AtomicBool>,
    /// No request has come on it yet.
    pub(super) first: AtomicBool,
    pub(super) requests: AtomicU64,
    /// Of the request before. It is set anew much cheaper than another one is made, as it is there until it fires.
    timer: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl Peer {
    pub fn new(connection: u64, accepted_at: Instant, sender: Result<Arc<str>, NotAllowed>) -> Self {
        let (first, requests, timer) = (AtomicBool::new(true), AtomicU64::new(0), Mutex::default());
        Self { connection, accepted_at, sender, closing: Arc::default(), first, requests, timer }
    }

    /// One that fires at `deadline`; to be given back by [`Self::keep`].
    pub(super) fn timer(&self, deadline: Instant) -> Pin<Box<Sleep>> {
        match self.timer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(mut timer) => {
                timer.as_mut().reset(deadline);
                timer
            }
            None => Box::pin(sleep_until(deadline)),
        }
    }

    pub(super) fn keep(&self, timer: Pin<Box<Sleep>>) {
        *self.timer.lock().unwrap_or_else(PoisonError::into_inner) = Some(timer);
    }
}
