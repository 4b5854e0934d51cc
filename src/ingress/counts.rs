//! The metrics of the answers.

use std::{sync::Arc, time::Duration};

use prometheus::IntCounter;

use super::refusal::Cause;
use crate::metrics::Metrics;

pub(super) struct Counts {
    metrics: Arc<Metrics>,
    committed: IntCounter,
    /// T: the sender's timeout.
    timeout: Duration,
}

impl Counts {
    /// Each possible answer is counted from 0.
    pub(super) fn new(metrics: Arc<Metrics>, timeout: Duration) -> Self {
        for cause in Cause::ALL {
            metrics.answers.with_label_values(&[cause.status().code().as_str(), cause.code()]);
        }
        let committed = metrics.answers.with_label_values(&["200", "committed"]);
        Self { metrics, committed, timeout }
    }

    pub(super) fn received(&self) {
        self.metrics.received.inc();
    }

    /// Counts a 200 that came `after` the start of the sender's clock.
    pub(super) fn committed(&self, after: Duration) {
        self.committed.inc();
        if after > self.timeout {
            self.metrics.late.inc();
        }
    }

    pub(super) fn refused(&self, cause: &Cause) {
        self.metrics.answers.with_label_values(&[cause.status().code().as_str(), cause.code()]).inc();
    }

    /// Counts any answer, given `after` the request's head.
    pub(super) fn answered(&self, after: Duration) {
        self.metrics.answer_seconds.observe(after.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_200_after_the_senders_timeout_is_late() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let counts = Counts::new(Arc::clone(&metrics), Duration::from_secs(5));
        counts.committed(Duration::from_secs(5));
        assert_eq!(metrics.late.get(), 0);
        counts.committed(Duration::from_secs(6));
        assert_eq!((metrics.late.get(), counts.committed.get()), (1, 2));
    }
}
