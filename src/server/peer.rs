//! The other end of a connection, as a handler sees it.

use std::{
    pin::Pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::Connection;
use crate::tls::Client;

/// The other end of a connection.
pub struct Peer {
    /// The number of the connection.
    pub connection: u64,
    /// When the connection was accepted: a sender's clock runs from there for its first request.
    pub accepted_at: Instant,
    /// The client, as its certificate names it.
    pub client: Client,
    requests: AtomicU64,
    /// The previous request's timer: to reset it is much cheaper than to make another one, because it stays registered.
    timer: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl Peer {
    pub(super) fn new(connection: &Connection, client: Client) -> Self {
        let (connection, accepted_at) = (connection.number, connection.accepted_at);
        Self { connection, accepted_at, client, requests: AtomicU64::new(0), timer: Mutex::default() }
    }

    /// Counts a request and returns its number, from 0.
    pub fn count_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// A timer that fires at `deadline`; to be given back by [`Self::keep`].
    #[inline]
    pub fn timer(&self, deadline: Instant) -> Pin<Box<Sleep>> {
        match self.timer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(mut timer) => {
                timer.as_mut().reset(deadline);
                timer
            }
            None => Box::pin(sleep_until(deadline)),
        }
    }

    /// Takes a timer back for the next request.
    #[inline]
    pub fn keep(&self, timer: Pin<Box<Sleep>>) {
        *self.timer.lock().unwrap_or_else(PoisonError::into_inner) = Some(timer);
    }
}
