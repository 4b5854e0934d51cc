//! Group commit: while a lane has records under way the next ones gather, and go out together once those are reported.
//!
//! An idle lane does not wait, and a busy one makes few and large batches: each request to a broker costs it and us
//! much the same whether it carries one record or a hundred. Nothing waits longer than [`GATHER_MAX`], so a partition
//! that is stuck does not hold up the others.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::letter::Letter;

/// The longest that a letter waits for those under way.
pub(super) const GATHER_MAX: Duration = Duration::from_millis(5);

#[derive(Default)]
pub(super) struct Gate(Mutex<State>);

#[derive(Default)]
struct State {
    /// Letters that went through and are not reported yet.
    under_way: usize,
    gathered: Vec<Letter>,
    /// Since when the first of them has waited.
    since: Option<Instant>,
    /// Sets of letters that went through and are just being handed to librdkafka.
    handing: usize,
}

impl Gate {
    /// Gives the letter back when it may go at once; keeps it otherwise. After each set of letters that this or the
    /// next two give, [`Gate::handed`] must be called.
    pub(super) fn enter(&self, mut letter: Letter) -> Option<Letter> {
        letter.parcel.through_gate = true;
        let mut state = self.lock();
        if state.under_way == 0 {
            state.under_way = 1;
            state.handing += 1;
            return Some(letter);
        }
        state.since.get_or_insert_with(Instant::now);
        state.gathered.push(letter);
        None
    }

    /// One that went through was reported. After the last one, all that have gathered may go.
    pub(super) fn reported(&self) -> Vec<Letter> {
        let mut state = self.lock();
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 { state.open() } else { Vec::new() }
    }

    /// All that have gathered, when the first of them has waited for [`GATHER_MAX`].
    pub(super) fn overdue(&self) -> Vec<Letter> {
        let mut state = self.lock();
        // While a set is being handed over, another thread's set could overtake it.
        let due = state.handing == 0 && state.since.is_some_and(|since| since.elapsed() >= GATHER_MAX);
        if due { state.open() } else { Vec::new() }
    }

    /// A set of letters is with librdkafka.
    pub(super) fn handed(&self) {
        let mut state = self.lock();
        state.handing = state.handing.saturating_sub(1);
    }

    /// All that have gathered, to be given up.
    pub(super) fn empty(&self) -> Vec<Letter> {
        std::mem::take(&mut self.lock().gathered)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&mut self) -> Vec<Letter> {
        self.since = None;
        self.under_way += self.gathered.len();
        self.handing += usize::from(!self.gathered.is_empty());
        std::mem::take(&mut self.gathered)
    }
}
