//! Before each producer: records that follow one another closely go together.
//!
//! A request to a broker costs both sides much the same whether it carries one record of a partition or ten, so a busy
//! bridge should gather. A fixed wait (`linger.ms`) would be paid by the idle one too. So a lane's gate shuts after each
//! opening, for longer the more records it let through: one that gets few records does not notice it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, Weak, mpsc},
    thread::Thread,
    time::{Duration, Instant},
};

use super::{letter::Letter, producer::Producers, watch};

/// How long a gate stays shut for each record that it let through. With it, gathering begins at 2,000 records a second.
const SHUT_PER_RECORD: Duration = Duration::from_micros(500);

/// How long it stays shut at most: what a busy bridge adds to an answer.
const SHUT_MAX: Duration = Duration::from_millis(8);

/// Gates that would open within this time of each other open together: one wake-up, and answers that go out together.
const ALIKE: Duration = Duration::from_millis(4);

/// How often the thread looks whether the producers are still there.
const IDLE: Duration = Duration::from_secs(1);

/// One lane's gate. Records leave it in the order in which they came.
pub(super) struct Gate {
    state: Mutex<State>,
    opener: Thread,
}

struct State {
    gathered: Vec<Letter>,
    opens_at: Instant,
    /// What was gathered is being handed over: nothing may overtake it.
    opening: bool,
    /// Nothing passes: the producer is being replaced.
    shut: bool,
}

impl Gate {
    pub(super) fn new(opener: &Thread) -> Self {
        let state = State { gathered: Vec::new(), opens_at: Instant::now(), opening: false, shut: false };
        Self { state: Mutex::new(state), opener: opener.clone() }
    }

    /// Hands the letter over at once when the gate is open, else later on the opener's thread.
    pub(super) fn pass(&self, letter: Letter, hand_over: impl FnOnce(Letter)) {
        let mut state = self.lock();
        let now = Instant::now();
        if !state.shut && !state.opening && state.gathered.is_empty() && now >= state.opens_at {
            state.opens_at = now + shut_for(1);
            return hand_over(letter);
        }
        state.gathered.push(letter);
        let first = state.gathered.len() == 1;
        drop(state);
        if first {
            self.opener.unpark();
        }
    }

    /// When it opens, if something waits.
    fn opens_at(&self) -> Option<Instant> {
        let state = self.lock();
        (!state.shut && !state.gathered.is_empty()).then_some(state.opens_at)
    }

    fn open(&self, hand_over: impl Fn(Letter)) {
        let mut state = self.lock();
        let letters = std::mem::take(&mut state.gathered);
        state.opens_at = Instant::now() + shut_for(letters.len());
        state.opening = true;
        drop(state);
        letters.into_iter().for_each(hand_over);
        self.lock().opening = false;
    }

    /// Lets nothing pass until [`Self::reopen`]. What is being handed over at this moment still is.
    pub(super) fn shut(&self) {
        self.lock().shut = true;
    }

    pub(super) fn reopen(&self) {
        self.lock().shut = false;
        self.opener.unpark();
    }

    /// Takes out what waits.
    pub(super) fn clear(&self) -> Vec<Letter> {
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

/// Starts the thread that opens all gates. It ends when the producers that it is given are gone.
pub(super) fn start(producers: mpsc::Receiver<Weak<Producers>>) -> Thread {
    let run = move || {
        let Ok(producers) = producers.recv() else { return };
        while let Some(producers) = producers.upgrade() {
            let now = Instant::now();
            let opens_by =
                |by: Instant| producers.lanes.iter().filter(move |it| it.gate.opens_at().is_some_and(|at| at <= by));
            if opens_by(now).next().is_some() {
                opens_by(now + ALIKE).for_each(|lane| lane.gate.open(|letter| lane.hand_over(letter)));
                continue;
            }
            let next = producers.lanes.iter().filter_map(|lane| lane.gate.opens_at()).min();
            drop(producers);
            std::thread::park_timeout(next.map_or(IDLE, |at| at.saturating_duration_since(now)));
        }
    };
    watch::spawn("pace", run)
}
