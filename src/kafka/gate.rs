//! A gate stands before each producer: records that follow one another closely go to the broker together, and their
//! reports come back together.
//!
//! A request to a broker costs both sides much the same whether it carries one record of a partition or ten, so a busy
//! bridge should gather. An idle bridge would pay for a fixed wait (`linger.ms`) too. Therefore a lane's gate shuts
//! after each opening, and for longer the more records it let through: a lane with few records does not notice the
//! gate.
//!
//! The gate also stays shut until its last records are reported, as later records wait better here. In librdkafka
//! (2.12, `rd_kafka_toppar_producer_serve`) a broker's thread polls without pause as long as more than [`WITHOUT_SPIN`]
//! records of a partition are in flight and others of that partition wait behind them.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::Thread,
    time::{Duration, Instant},
};

use super::{counts::Counts, outgoing::Outgoing};

/// How long a gate stays shut for each record that it let through. Gathering begins at 2,000 records a second.
const SHUT_PER_RECORD: Duration = Duration::from_micros(500);

/// The longest time a gate stays shut, which a busy bridge adds to each answer.
const SHUT_MAX: Duration = Duration::from_millis(4);

/// librdkafka's `RD_KAFKA_IDEMP_MAX_INFLIGHT`, less one.
const WITHOUT_SPIN: usize = 4;

/// One lane's gate. Records leave it in the order in which they came.
pub(super) struct Gate {
    state: Mutex<State>,
    /// Signals the end of `opening`.
    opened: Condvar,
    opener: Thread,
    counts: Arc<Counts>,
    /// The longest wait for the first report. By then librdkafka has given the request up, or half of D is over.
    patience: Duration,
}

struct State {
    gathered: Vec<Outgoing>,
    opens_at: Instant,
    /// The gate opens again once librdkafka has at most this many records.
    enough: usize,
    /// The number of reports at the last opening.
    reported: usize,
    /// Gathered records are being handed over: nothing may overtake them.
    opening: bool,
    /// The producer is being replaced: nothing passes.
    shut: bool,
}

impl Gate {
    pub(super) fn new(opener: &Thread, counts: &Arc<Counts>, patience: Duration) -> Self {
        let state = State {
            gathered: Vec::new(),
            opens_at: Instant::now(),
            enough: WITHOUT_SPIN,
            reported: 0,
            opening: false,
            shut: false,
        };
        Self {
            state: Mutex::new(state),
            opened: Condvar::new(),
            opener: opener.clone(),
            counts: Arc::clone(counts),
            patience,
        }
    }

    /// Hands the record over at once when the gate is open; otherwise the opener's thread does so later.
    ///
    /// An immediate hand-over happens under the gate's lock; librdkafka copies the record and returns. Without the lock
    /// a request's thread A could find the gate open, and be put to sleep before its hand-over. Meanwhile
    /// - thread B, with the next event of the same key, finds the gate open too, and its record becomes the first of
    ///   the two; or
    /// - [`Self::shut`] returns, the old producer is settled and replaced, and A's record goes to the settled one: it
    ///   comes back as purged, and is produced again behind all later records.
    ///
    /// So the lock's holder knows that no thread stands between its look at the gate and librdkafka. The opener alone
    /// hands over without the lock, as thousands of records should not hold up every request of the feed. `opening`
    /// tells the other threads: they gather their records behind it, and `shut` waits for its end.
    pub(super) fn pass(&self, outgoing: Outgoing, hand_over: impl FnOnce(Outgoing)) {
        let mut state = self.lock();
        let now = outgoing.parcel.accepted;
        if !state.shut && !state.opening && state.gathered.is_empty() && self.may_open(&state, now) {
            state.opens_at = now + shut_for(1);
            return hand_over(outgoing);
        }
        state.gathered.push(outgoing);
        drop(state);
    }

    /// Whether records wait and may leave.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let state = self.lock();
        !state.shut && !state.gathered.is_empty() && self.may_open(&state, now)
    }

    fn may_open(&self, state: &State, now: Instant) -> bool {
        if now < state.opens_at {
            return false;
        }
        if self.counts.in_librdkafka() <= state.enough {
            return true;
        }
        // If only some reports have come, a partition may be stuck; it must not hold up the others for the whole time.
        let some = self.counts.reported() != state.reported;
        now >= state.opens_at + if some { self.patience / 2 } else { self.patience }
    }

    pub(super) fn open(&self, hand_over: impl Fn(Outgoing)) {
        let mut state = self.lock();
        if state.shut {
            return;
        }
        let records = std::mem::take(&mut state.gathered);
        state.opens_at = Instant::now() + shut_for(records.len());
        // Records that are still unreported may be stuck for long, so they do not count.
        state.enough = self.counts.in_librdkafka() + WITHOUT_SPIN;
        state.reported = self.counts.reported();
        state.opening = true;
        drop(state);
        records.into_iter().for_each(hand_over);
        self.lock().opening = false;
        self.opened.notify_all();
    }

    /// Lets nothing pass until [`Self::reopen`]. Returns once a hand-over under way has ended.
    pub(super) fn shut(&self) {
        let mut state = self.lock();
        state.shut = true;
        drop(self.opened.wait_while(state, |state| state.opening));
    }

    pub(super) fn reopen(&self) {
        self.lock().shut = false;
    }

    /// Wakes the opener's thread, as records are under way again.
    pub(super) fn wake(&self) {
        self.opener.unpark();
    }

    /// Takes the gathered records out.
    pub(super) fn clear(&self) -> Vec<Outgoing> {
        std::mem::take(&mut self.lock().gathered)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shut_for(records: usize) -> Duration {
    let records = u32::try_from(records).unwrap_or(u32::MAX);
    SHUT_PER_RECORD.saturating_mul(records).min(SHUT_MAX)
}
