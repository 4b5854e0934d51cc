//! What is counted of each answer.

use std::{sync::Arc, time::Duration};

use prometheus::IntCounter;

use super::refusal::Cause;
use crate::metrics::Metrics;

pub(super) struct Counts {
    metrics: Arc<Metrics>,
    committed: IntCounter,
    /// When the sender gives an attempt up.
    timeout: Duration,
}

impl Counts {
    /// Each answer that there can be is counted from 0.
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

    /// A 200 that came so long after the sender's clock began to run.
    pub(super) fn committed(&self, after: Duration) {
        self.committed.inc();
        if after > self.timeout {
            self.metrics.late.inc();
        }
    }

    pub(super) fn refused(&self, cause: &Cause) {
        self.metrics.answers.with_label_values(&[cause.status().code().as_str(), cause.code()]).inc();
    }

    /// Whatever it was answered, so long after its head.
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
