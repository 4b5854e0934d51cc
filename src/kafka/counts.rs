//! The counts of a lane's records, each from its acceptance until it is committed or given up.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::{Histogram, IntCounter};

use super::{LaneId, health::Ailment};
use crate::metrics::Metrics;

/// A lane's counts.
pub(super) struct Counts {
    pub(super) lane: LaneId,
    pub(super) label: String,
    outstanding: AtomicUsize,
    /// Records handed over to librdkafka; `reported` counts those that it has given back.
    handed_over: AtomicUsize,
    reported: AtomicUsize,
    committed: Committed,
    undelivered: IntCounter,
    pub(super) metrics: Arc<Metrics>,
    drained: Arc<Drained>,
}

enum Committed {
    Feed { committed: IntCounter, late: IntCounter, seconds: Histogram },
    DeadLetter,
}

/// The kind of a record, for its counts.
#[derive(Debug, Clone)]
pub(super) enum RecordKind {
    Event,
    DeadLetter { stage: &'static str, feed: Option<String> },
}

/// The guard of one record that is not committed yet. Its drop ends the count, whichever way the record went.
pub(super) struct Outstanding {
    counts: Arc<Counts>,
    in_librdkafka: bool,
}

impl Counts {
    pub(super) fn new(
        lane: LaneId,
        label: &str,
        dead_letters: bool,
        metrics: &Arc<Metrics>,
        drained: &Arc<Drained>,
    ) -> Arc<Self> {
        let labels = [label];
        let committed = if dead_letters {
            Committed::DeadLetter
        } else {
            Committed::Feed {
                committed: metrics.committed.with_label_values(&labels),
                late: metrics.committed_late.with_label_values(&labels),
                seconds: metrics.commit_seconds.with_label_values(&labels),
            }
        };
        let counts = Arc::new(Self {
            lane,
            label: label.to_owned(),
            outstanding: AtomicUsize::new(0),
            handed_over: AtomicUsize::new(0),
            reported: AtomicUsize::new(0),
            committed,
            undelivered: metrics.undelivered.with_label_values(&labels),
            metrics: Arc::clone(metrics),
            drained: Arc::clone(drained),
        });
        metrics.show(metrics.queue_records.with_label_values(&labels), &counts, Self::outstanding);
        // Each count starts at 0, so that an alert sees its first step.
        let _ = Ailment::ALL.map(|ailment| metrics.producer_replaced.with_label_values(&[label, ailment.reason()]));
        counts
    }

    /// Counts a new record; also returns the number that there were before.
    pub(super) fn begin(self: &Arc<Self>) -> (Outstanding, usize) {
        let before = self.outstanding.fetch_add(1, Ordering::SeqCst);
        (Outstanding { counts: Arc::clone(self), in_librdkafka: false }, before)
    }

    /// The number of the lane's records that are not committed yet.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::SeqCst)
    }

    /// The number of records that librdkafka has.
    pub(super) fn in_librdkafka(&self) -> usize {
        let reported = self.reported();
        self.handed_over.load(Ordering::Acquire).saturating_sub(reported)
    }

    /// The number of records that librdkafka has given back.
    pub(super) fn reported(&self) -> usize {
        self.reported.load(Ordering::Acquire)
    }

    pub(super) fn replaced(&self, ailment: Ailment) {
        self.metrics.producer_replaced.with_label_values(&[&self.label, ailment.reason()]).inc();
    }

    pub(super) fn committed(&self, kind: &RecordKind, took: Duration) {
        match (&self.committed, kind) {
            (Committed::Feed { committed, seconds, .. }, _) => {
                committed.inc();
                seconds.observe(took.as_secs_f64());
            }
            (Committed::DeadLetter, RecordKind::DeadLetter { stage, feed }) => {
                let feed = feed.as_deref().unwrap_or("unknown");
                self.metrics.dead_letters.with_label_values(&[feed, stage]).inc();
            }
            (Committed::DeadLetter, RecordKind::Event) => {}
        }
    }

    /// Counts a committed record for which no request waited any more.
    pub(super) fn committed_late(&self) {
        if let Committed::Feed { late, .. } = &self.committed {
            late.inc();
        }
    }
}

impl Outstanding {
    /// Counts the record as librdkafka's. This comes before the hand-over, as the report may be faster than the call's
    /// return.
    pub(super) fn hand_over(&mut self) {
        self.in_librdkafka = true;
        self.counts.handed_over.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts that librdkafka has given the record back.
    pub(super) fn report(&mut self) {
        if std::mem::take(&mut self.in_librdkafka) {
            self.counts.reported.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Counts that the record will not be committed.
    pub(super) fn give_up(self) {
        self.counts.undelivered.inc();
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.report();
        if self.counts.outstanding.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.counts.drained.notify();
        }
    }
}

/// Wakes the thread that waits until no lane has a record left. While no thread waits, the last record of a lane pays
/// for one atomic load.
#[derive(Default)]
pub(super) struct Drained {
    awaited: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Drained {
    /// Waits until `outstanding` is 0, at most until `deadline`.
    ///
    /// No wake-up is lost: `awaited` is set before the records are counted, and a record's end is counted before
    /// `awaited` is read, in one order for all threads (`SeqCst`). So either this thread sees the last end, or the
    /// ending thread finds `awaited` set; then that thread takes the lock, which is free only once this thread sleeps.
    pub(super) fn wait(&self, deadline: Instant, outstanding: impl Fn() -> usize) {
        self.awaited.store(true, Ordering::SeqCst);
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let patience = deadline.saturating_duration_since(Instant::now());
        drop(self.changed.wait_timeout_while(lock, patience, |()| outstanding() > 0));
    }

    fn notify(&self) {
        if self.awaited.load(Ordering::SeqCst) {
            drop(self.lock.lock());
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_ends_with_its_guard_and_wakes_who_waits_for_the_last() {
        let (metrics, drained) = (Arc::new(Metrics::new().unwrap()), Arc::default());
        let counts = Counts::new(LaneId::FIRST, "feed", false, &metrics, &drained);
        let (mut first, before) = counts.begin();
        let second = counts.begin();
        assert_eq!((before, second.1, counts.outstanding()), (0, 1, 2));
        drop(second);
        first.hand_over();
        assert_eq!((counts.in_librdkafka(), counts.reported()), (1, 0));
        let started = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| drained.wait(started + Duration::from_secs(60), || counts.outstanding()));
            while !drained.awaited.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            drop(first);
        });
        assert!(started.elapsed() < Duration::from_secs(30));
        assert_eq!((counts.outstanding(), counts.in_librdkafka(), counts.reported()), (0, 0, 1));
        let (last, _) = counts.begin();
        drained.wait(Instant::now() + Duration::from_millis(20), || counts.outstanding());
        last.give_up();
        assert_eq!((counts.outstanding(), counts.undelivered.get()), (0, 1));
    }
}
