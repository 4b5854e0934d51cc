//! The schedule: which event is next, and when it is due.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The rule for when an event is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Closed loop: when a connection is free.
    Closed,
    /// Open loop: this many events per second, however slow the answers are.
    Rate(f64),
}

/// Hands out the events of a run.
pub struct Schedule {
    pace: Pace,
    begun: OnceLock<Instant>,
    /// Closed loop: no event begins after this time.
    lasts: Option<Duration>,
    total: u64,
    next: AtomicU64,
    due: Semaphore,
    released: AtomicU64,
    settled: AtomicU64,
    all_released: AtomicBool,
}

/// An event's turn.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The event's number, from 0.
    pub index: u64,
    /// The time at which it is due.
    pub due: Instant,
}

/// At a high rate, events that are due within this time are released together.
const QUANTUM: Duration = Duration::from_micros(200);
/// At a low rate, a stop is noticed after this time at the latest.
const PAUSE_MAX: Duration = Duration::from_millis(50);

impl Schedule {
    /// A schedule of at most `total` events and at most the time `lasts`; `None` is no limit.
    pub fn new(pace: Pace, total: Option<u64>, lasts: Option<Duration>) -> Self {
        let total = total.unwrap_or(u64::MAX);
        let total = match (pace, lasts) {
            // Every event that is due within the time is sent, however late.
            (Pace::Rate(rate), Some(lasts)) => total.min((rate * lasts.as_secs_f64()).ceil() as u64),
            _ => total,
        };
        Self {
            pace,
            begun: OnceLock::new(),
            lasts: lasts.filter(|_| pace == Pace::Closed),
            total,
            next: AtomicU64::new(0),
            due: Semaphore::new(0),
            released: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            all_released: AtomicBool::new(false),
        }
    }

    /// The number of events, if it is known.
    pub fn total(&self) -> Option<u64> {
        (self.total != u64::MAX).then_some(self.total)
    }

    /// The pace of the run.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// The beginning of the run: the time of the first call.
    pub fn begun(&self) -> Instant {
        *self.begun.get_or_init(Instant::now)
    }

    /// Closed loop: the next event, due now.
    pub fn take(&self) -> Option<Turn> {
        let due = Instant::now();
        if self.lasts.is_some_and(|lasts| due >= self.begun() + lasts) {
            return None;
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.total).then_some(Turn { index, due })
    }

    /// Open loop: waits until an event is due, for its first or a later attempt. Returns false if none will be.
    pub async fn wait(&self) -> bool {
        self.due.acquire().await.map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    /// Open loop: the new event that [`Self::wait`] waited for.
    pub fn take_due(&self) -> Turn {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        Turn { index, due: self.due_at(index) }
    }

    /// Open loop: notes that an event is due for its next attempt.
    pub fn due_again(&self) {
        self.due.add_permits(1);
    }

    /// Open loop: notes that a released event has ended.
    pub fn settle(&self) {
        self.settled.fetch_add(1, Ordering::SeqCst);
        self.close_if_done();
    }

    /// Open loop: releases each event when it is due, until all are released or `stop`. It runs on a thread of its own,
    /// because tokio's timers are a millisecond late, which is as long as many an answer takes.
    pub fn release(&self, stop: &CancellationToken) {
        let Pace::Rate(rate) = self.pace else { return };
        let begun = self.begun();
        let mut released = 0;
        while released < self.total && !stop.is_cancelled() {
            let passed = (begun.elapsed().as_secs_f64() * rate) as u64;
            let due = passed.saturating_add(1).min(self.total);
            if due > released {
                self.released.store(due, Ordering::SeqCst);
                self.due.add_permits((due - released) as usize);
                released = due;
            }
            let next = self.due_at(released).saturating_duration_since(Instant::now());
            thread::sleep(next.clamp(QUANTUM, PAUSE_MAX));
        }
        self.all_released.store(true, Ordering::SeqCst);
        self.close_if_done();
    }

    fn due_at(&self, index: u64) -> Instant {
        match self.pace {
            Pace::Closed => self.begun(),
            Pace::Rate(rate) => self.begun() + Duration::from_secs_f64(index as f64 / rate),
        }
    }

    /// The last event may end before or after the last release. Both call this, and the later one finds both done.
    fn close_if_done(&self) {
        if self.all_released.load(Ordering::SeqCst)
            && self.settled.load(Ordering::SeqCst) == self.released.load(Ordering::SeqCst)
        {
            self.due.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn an_open_loop_releases_every_event_at_its_time_and_then_ends() {
        let schedule = Arc::new(Schedule::new(Pace::Rate(1_000.0), None, Some(Duration::from_millis(100))));
        assert_eq!(schedule.total(), Some(100));
        let mut indexes = Vec::new();
        let pacer = Arc::clone(&schedule);
        let releasing = thread::spawn(move || pacer.release(&CancellationToken::new()));
        while schedule.wait().await {
            let turn = schedule.take_due();
            assert_eq!(turn.due, schedule.begun() + Duration::from_millis(turn.index));
            assert!(turn.due <= Instant::now());
            indexes.push(turn.index);
            schedule.settle();
        }
        releasing.join().unwrap();
        assert_eq!(indexes, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_closed_loop_ends_by_count_or_time() {
        let count = |schedule: &Schedule| {
            schedule.begun();
            std::iter::from_fn(|| schedule.take()).take(10).count()
        };
        assert_eq!(count(&Schedule::new(Pace::Closed, Some(3), None)), 3);
        assert_eq!(count(&Schedule::new(Pace::Closed, Some(3), Some(Duration::ZERO))), 0);
        assert_eq!(count(&Schedule::new(Pace::Closed, None, Some(Duration::from_secs(60)))), 10);
        assert_eq!(count(&Schedule::new(Pace::Closed, None, None)), 10);
    }
}
