//! The requests that wait for their receipts, and what limits them.

use std::sync::Arc;

use prometheus::IntCounterVec;

use crate::{
    kafka::{Accepted, Pending},
    metrics::Metrics,
    quota::{Account, Quota, Share},
    record::Record,
};

/// The requests that wait for one producer.
pub struct Held {
    pub quota: Arc<Quota>,
    bytes: Arc<Account>,
    counts: Arc<HeldCounts>,
}

/// What is counted of them.
pub struct HeldCounts {
    label: String,
    refused: IntCounterVec,
}

/// Nothing was taken: the limit that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overload {
    #[error("too many requests are in flight for this feed")]
    InFlight,
    #[error("too many bytes wait to be committed")]
    Bytes,
}

/// A request that waits for its receipt.
pub struct InFlight {
    pub pending: Pending,
    /// It waits for an earlier attempt of its event: no room is taken for this one's body.
    pub joined: bool,
    _share: Share,
    counts: Arc<HeldCounts>,
}

impl InFlight {
    /// Counts that it was answered 503, with this code.
    pub fn refused(&self, code: &str) {
        self.counts.refuse(code);
    }
}

impl Overload {
    /// The `code` of its answer.
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
    /// The codes of 503. What may happen is counted from 0, as Prometheus cannot see a counter's first step otherwise.
    pub const REFUSALS: [&str; 3] = [Overload::CODE, "no_commit_in_time", "stopping"];

    pub fn new(label: &str, in_flight_max: usize, metrics: &Metrics) -> Self {
        let quota = Quota::new(in_flight_max);
        metrics.show(metrics.in_flight.with_label_values(&[label]), &quota, Quota::taken);
        Self { quota, bytes: Arc::default(), counts: HeldCounts::new(label, metrics) }
    }

    /// The body is kept beside its record until the commit, for the dead letter should the topic refuse it.
    pub fn make_room(&self, accepted: &mut Accepted, record: &Record) -> Result<(), Overload> {
        let needed = accepted.body.len() + record.size();
        accepted.bytes.charge(&self.bytes, needed).then_some(()).ok_or(Overload::Bytes)
    }

    pub fn take(&self) -> Result<Share, Overload> {
        self.quota.take(1).ok_or(Overload::InFlight)
    }

    /// Counts that an event is answered 503 for this.
    pub fn refuse(&self, overload: Overload) -> Overload {
        self.counts.refuse(Overload::CODE);
        overload
    }

    pub fn hold(&self, share: Share, pending: Pending) -> InFlight {
        InFlight { pending, joined: false, _share: share, counts: Arc::clone(&self.counts) }
    }

    pub fn join(&self, share: Share, pending: Pending) -> InFlight {
        // What was committed before is answered at once.
        InFlight { joined: matches!(pending, Pending::Waiting(_)), ..self.hold(share, pending) }
    }
}
