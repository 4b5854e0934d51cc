//! Before each producer: records that follow one another closely go together. And behind it: so do their reports.
//!
//! A request to a broker costs both sides much the same whether it carries one record of a partition or ten, so a busy
//! bridge should gather. A fixed wait (`linger.ms`) would be paid by the idle one too. So a lane's gate shuts after each
//! opening, for longer the more records it let through: one that gets few records does not notice it.
//!
//! It stays shut, too, until what it let through last is reported: what comes after waits better here. In
//! librdkafka (2.12, `rd_kafka_toppar_producer_serve`) a broker's thread polls without pause as long as more than
//! [`WITHOUT_SPIN`] records of a partition are in flight and others of it wait behind them.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::Thread,
    time::{Duration, Instant},
};

use super::{counts::Counts, outgoing::Outgoing};

/// How long a gate stays shut for each record that it let through. With it, gathering begins at 2,000 records a second.
const SHUT_PER_RECORD: Duration = Duration::from_micros(500);

/// How long it stays shut at most: what a busy bridge adds to an answer.
const SHUT_MAX: Duration = Duration::from_millis(4);

/// librdkafka's `RD_KAFKA_IDEMP_MAX_INFLIGHT`, less one.
const WITHOUT_SPIN: usize = 4;

/// One lane's gate. Records leave it in the order in which they came.
pub(super) struct Gate {
    state: Mutex<State>,
    /// Tells that `opening` has ended.
    opened: Condvar,
    opener: Thread,
    counts: Arc<Counts>,
    /// How long it waits for the first report: by then librdkafka has given the request up, or half of D is over.
    patience: Duration,
}

struct State {
    gathered: Vec<Outgoing>,
    opens_at: Instant,
    /// With so many in librdkafka it opens again.
    enough: usize,
    /// How many had been reported when it opened.
    reported: usize,
    /// What was gathered is being handed over: nothing may overtake it.
    opening: bool,
    /// Nothing passes: the producer is being replaced.
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

    /// Hands the record over at once when the gate is open, else later on the opener's thread.
    ///
    /// At once means under the gate's lock; librdkafka copies the record and returns. Without the lock a request's thread A could
    /// find the gate open, and be put to sleep before it hands its record over. Meanwhile
    /// - B, with the next event of the same key, finds the gate open too, and its record is the first of the two; or
    /// - [`Self::shut`] returns, the old producer is settled and replaced, and A's record goes to the one that was settled: it
    ///   comes back as purged, and is produced again behind all that came after it.
    ///
    /// So whoever has the lock knows that nobody stands between the look at the gate and librdkafka. The opener alone hands over
    /// without it, as thousands of records should not hold up every request of the feed. `opening` says so to the others: what
    /// comes meanwhile is gathered behind, and `shut` waits for its end.
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

    /// Whether something waits, and may go.
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
        // Where some reports have come a partition may be stuck: it must not hold up the others for as long.
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
        // What was not reported by now may be stuck for long, and does not count.
        state.enough = self.counts.in_librdkafka() + WITHOUT_SPIN;
        state.reported = self.counts.reported();
        state.opening = true;
        drop(state);
        records.into_iter().for_each(hand_over);
        self.lock().opening = false;
        self.opened.notify_all();
    }

    /// Lets nothing pass until [`Self::reopen`], once what is being handed over at this moment is.
    pub(super) fn shut(&self) {
        let mut state = self.lock();
        state.shut = true;
        drop(self.opened.wait_while(state, |state| state.opening));
    }

    pub(super) fn reopen(&self) {
        self.lock().shut = false;
    }

    /// Records are under way again: there is something to wait for.
    pub(super) fn wake(&self) {
        self.opener.unpark();
    }

    /// Takes out what waits.
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
