//! Held requests, which wait for their receipts, and their limits.

use std::sync::Arc;

use prometheus::IntCounterVec;

use crate::{
    kafka::{Accepted, Pending},
    metrics::Metrics,
    quota::{Account, Quota, Share},
    record::Record,
};

/// The held requests of one lane.
pub struct Held {
    /// The number of requests that may be held at once.
    pub quota: Arc<Quota>,
    bytes: Arc<Account>,
    counts: Arc<HeldCounts>,
}

/// The counts of a lane's refusals.
pub struct HeldCounts {
    label: String,
    refused: IntCounterVec,
}

/// A limit was reached, so nothing was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overload {
    /// The limit of held requests per lane.
    #[error("too many requests are in flight for this feed")]
    InFlight,
    /// The limit of bytes in the queue, or a lane's fair part of it.
    #[error("too many bytes wait to be committed")]
    Bytes,
}

/// A held request. It keeps its place until it is dropped.
pub struct InFlight {
    /// The receipt to come.
    pub pending: Pending,
    /// Whether it waits for an earlier attempt of its event: then its own body takes no room.
    pub joined: bool,
    _share: Share,
    counts: Arc<HeldCounts>,
}

impl InFlight {
    /// Counts that the request was answered 503, with this code.
    pub fn refused(&self, code: &str) {
        self.counts.refuse(code);
    }
}

impl Overload {
    /// The `code` in the body of the answer.
    pub const CODE: &str = "overload";
}

impl HeldCounts {
    fn new(label: &str, metrics: &Metrics) -> Arc<Self> {
        for code in Held::REFUSALS {
            metrics.refused.with_label_values(&[label, code]);
        }
        Arc::new(Self { label: label.to_owned(), refused: metrics.refused.clone() })
    }

    fn refuse(&self, code: &str) {
        self.refused.with_label_values(&[self.label.as_str(), code]).inc();
    }
}

impl Held {
    /// The codes of 503. Each count starts at 0, as Prometheus cannot see a counter's first step otherwise.
    pub const REFUSALS: [&str; 3] = [Overload::CODE, "no_commit_in_time", "stopping"];

    /// Limits the held requests of the lane with this label to `in_flight_max`.
    pub fn new(label: &str, in_flight_max: usize, metrics: &Metrics) -> Self {
        let quota = Quota::new(in_flight_max);
        metrics.show(metrics.in_flight.with_label_values(&[label]), &quota, Quota::taken);
        Self { quota, bytes: Arc::default(), counts: HeldCounts::new(label, metrics) }
    }

    /// Takes room in the queue for a record and its body. The body is kept until the commit: if the topic refuses the
    /// record, the dead letter needs it.
    ///
    /// # Errors
    /// [`Overload::Bytes`].
    pub fn make_room(&self, accepted: &mut Accepted, record: &Record) -> Result<(), Overload> {
        let needed = accepted.body.len() + record.size();
        accepted.bytes.charge(&self.bytes, needed).then_some(()).ok_or(Overload::Bytes)
    }

    /// Takes a place for one request.
    ///
    /// # Errors
    /// [`Overload::InFlight`].
    pub fn take(&self) -> Result<Share, Overload> {
        self.quota.take(1).ok_or(Overload::InFlight)
    }

    /// Counts an answer of 503 for this overload, and returns the overload.
    pub fn refuse(&self, overload: Overload) -> Overload {
        self.counts.refuse(Overload::CODE);
        overload
    }

    /// Holds a request that is the first attempt of its event.
    pub fn hold(&self, share: Share, pending: Pending) -> InFlight {
        InFlight { pending, joined: false, _share: share, counts: Arc::clone(&self.counts) }
    }

    /// Holds a request whose event is under way or committed already.
    pub fn join(&self, share: Share, pending: Pending) -> InFlight {
        // The receipt of a committed event is there, so such a request waits for nobody.
        InFlight { joined: matches!(pending, Pending::Waiting(_)), ..self.hold(share, pending) }
    }
}
