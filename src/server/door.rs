//! A listener's door: the handler, limits and quotas that all its connections share, whatever API stands behind it.

use std::{sync::Arc, time::Duration};

use hyper::{Request, body::Incoming};

use super::{Busy, Peer};
use crate::{
    http::Answer,
    quota::{Quota, Share},
    tls::Client,
};

/// An API, as the server knows it: it answers requests.
pub trait Handler: Send + Sync + 'static {
    /// The kinds of answers that the API may give: a [`Write`](crate::http::Write) has no success without a commit.
    type Answer: Into<Answer>;

    /// Answers one request. The request is under way until `busy` is dropped: eviction and a drain spare its connection
    /// till then.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Arc<Peer>,
        busy: Busy,
    ) -> impl Future<Output = Self::Answer> + Send + 'static;
}

/// The limits of one listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The section of the configuration that sets these limits.
    pub section: &'static str,
    /// Open connections at once.
    pub connections_max: usize,
    /// The longest time that a connection stays open without a request.
    pub idle_max: Duration,
    /// The longest life of a connection, busy or not.
    pub age_max: Duration,
    /// From a head's first byte to its last.
    pub head_max: Duration,
    /// HTTP/2: streams of all connections, beyond those that each has anyway.
    pub streams_max: usize,
}

/// The part of a server that a conversation needs.
pub struct Door<H> {
    pub(super) handler: Arc<H>,
    /// The limits of the listener.
    pub limits: Limits,
    streams: Arc<Quota>,
}

/// The most HTTP/2 requests that one connection may hold at once; h2 keeps their memory until the connection ends.
/// Clients take 100 for granted (RFC 9113, section 6.5.2), and a hundred connections can have this many.
const STREAMS_MAX: usize = 512;

/// The streams that each connection has for its own, as part of its memory anyway. Those beyond are taken from the
/// quota that all connections share.
const STREAMS_OWN: usize = 8;

/// The streams of a client that is not on the allow-list: it may not post, so it needs no more than one to be told so.
const STREAMS_NOT_ALLOWED_MAX: usize = 1;

impl<H: Handler> Door<H> {
    /// Makes the door, with a quota of `limits.streams_max` streams.
    pub fn new(handler: Arc<H>, limits: Limits) -> Self {
        Self { handler, limits, streams: Quota::new(limits.streams_max) }
    }

    /// The number of HTTP/2 streams that a connection may have, and its share of the common quota, kept until the
    /// connection ends. The number is fixed when the connection begins, so only a client that is authenticated by then
    /// gets a share.
    pub(super) fn take_streams(&self, client: &Client) -> (usize, Option<Share>) {
        match client {
            Client::Allowed(_) => {
                let shared = self.take_shared_streams();
                (STREAMS_OWN + shared.as_ref().map_or(0, Share::amount), shared)
            }
            Client::NotAllowed(_) => (STREAMS_NOT_ALLOWED_MAX, None),
            Client::Unknown => (STREAMS_OWN, None),
        }
    }

    /// A quarter of what is free, so that no connection comes too late for some.
    fn take_shared_streams(&self) -> Option<Share> {
        let free = self.streams.max().saturating_sub(self.streams.taken());
        self.streams.take((STREAMS_MAX - STREAMS_OWN).min(free / 4))
    }
}
