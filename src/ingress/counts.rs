//! What is counted of each answer.

use std::{sync::Arc, time::Duration};

use hyper::StatusCode;
use prometheus::IntCounter;
use tokio::time::Instant;

use crate::metrics::Metrics;

pub(super) struct Counts {
    metrics: Arc<Metrics>,
    committed: IntCounter,
    /// When the sender gives an attempt up.
    timeout: Duration,
}

impl Counts {
    /// `refusals` are all that there can be: each is counted from 0.
    pub(super) fn new(
        metrics: Arc<Metrics>,
        timeout: Duration,
        refusals: impl IntoIterator<Item = (StatusCode, &'static str)>,
    ) -> Self {
        for (status, code) in refusals {
            metrics.answers.with_label_values(&[status.as_str(), code]);
        }
        let committed = metrics.answers.with_label_values(&["200", "committed"]);
        Self { metrics, committed, timeout }
    }

    pub(super) fn received(&self) {
        self.metrics.received.inc();
    }

    /// A 200 to a request for which the sender's clock has run since `started`.
    pub(super) fn committed(&self, started: Instant) {
        self.committed.inc();
        if started.elapsed() > self.timeout {
            self.metrics.late.inc();
        }
    }

    pub(super) fn refused(&self, status: StatusCode, code: &str) {
        self.metrics.answers.with_label_values(&[status.as_str(), code]).inc();
    }

    /// Whatever it was answered.
    pub(super) fn answered(&self, head_at: Instant) {
        self.metrics.answer_seconds.observe(head_at.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_200_after_the_senders_timeout_is_late() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let counts = Counts::new(Arc::clone(&metrics), Duration::from_secs(5), []);
        counts.committed(Instant::now());
        assert_eq!(metrics.late.get(), 0);
        counts.committed(Instant::now() - Duration::from_secs(6));
        assert_eq!((metrics.late.get(), counts.committed.get()), (1, 2));
    }
}
