//! How soon something happened, judged by what this machine does at that moment.
//!
//! A test's limit of time is written down as what two quiet cores need: its *usual* time. Other programs, other tests and a
//! neighbour on the same hardware make each machine slower than that at times. So a thread beside the tests takes turns of a
//! fixed piece of work, each due at a certain moment, and a limit grows by as much as the slowest turn of its time came late.

use std::{
    collections::VecDeque,
    hint::black_box,
    sync::{Mutex, Once},
    thread::sleep,
    time::{Duration, Instant},
};

/// From the end of one turn to the moment when the next is due.
const PAUSE: Duration = Duration::from_millis(100);

/// What a turn takes where nothing else is at work, in the kind of build that runs: longer than the slice of time that a
/// scheduler gives, so that whoever else wants the core delays it.
const USUAL_TURN: Duration = Duration::from_millis(6);

const ROUNDS: u32 = if cfg!(debug_assertions) { 950_000 } else { 3_800_000 };

const LATELY: Duration = Duration::from_secs(20);
const LATELY_MAX: f64 = 12.0;

/// No test takes longer than these cover.
const TURNS_KEPT: usize = 10_000;

/// Each turn: when it was due, when it was done, and how many times the usual it took.
static TURNS: Mutex<VecDeque<(Instant, Instant, f64)>> = Mutex::new(VecDeque::new());

pub struct Stopwatch {
    started: Instant,
}

/// What takes the `usual` time on two quiet cores takes about this long on this machine, as it was of late. For times that a
/// test chooses, such as a sender's timeout: these have an end on the slowest machine too.
pub fn lately(usual: Duration) -> Duration {
    let mut watch = Stopwatch::start();
    watch.started -= LATELY;
    usual.mul_f64(watch.slowness().min(LATELY_MAX))
}

/// The same in milliseconds, as a configuration has it.
pub fn lately_ms(usual: Duration) -> String {
    lately(usual).as_millis().to_string()
}

impl Stopwatch {
    pub fn start() -> Self {
        static SAMPLER: Once = Once::new();
        SAMPLER.call_once(|| drop(std::thread::spawn(take_turns)));
        Self { started: Instant::now() }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What may take the `usual` time on two quiet cores may take this long on this machine, as it was since the start.
    pub fn allowed(&self, usual: Duration) -> Duration {
        usual.mul_f64(self.slowness())
    }

    /// A check of time: no longer than this is allowed to take.
    #[track_caller]
    pub fn assert_within(&self, usual: Duration) {
        let elapsed = self.elapsed();
        self.assert_allows(elapsed, usual);
    }

    /// The same for a time that was measured some other way, after the start.
    #[track_caller]
    pub fn assert_allows(&self, elapsed: Duration, usual: Duration) {
        let slowness = self.slowness();
        assert!(
            elapsed < usual.mul_f64(slowness),
            "{elapsed:?}; {usual:?} are usual, the machine is {slowness:.1} times slower"
        );
    }

    /// How many times the usual the slowest turn since the start took; waits for one where there is none yet.
    fn slowness(&self) -> f64 {
        loop {
            let turns = TURNS.lock().unwrap();
            let since = turns.iter().rev().take_while(|(_, done, _)| *done >= self.started);
            if let Some(slowest) = since.map(|(.., times)| *times).reduce(f64::max) {
                return slowest.max(1.0);
            }
            drop(turns);
            sleep(PAUSE / 10);
        }
    }
}

fn take_turns() {
    loop {
        let due = Instant::now() + PAUSE;
        sleep(PAUSE);
        work();
        let done = Instant::now();
        let mut turns = TURNS.lock().unwrap();
        if turns.len() == TURNS_KEPT {
            turns.pop_front();
        }
        turns.push_back((due, done, (done - due).div_duration_f64(USUAL_TURN)));
    }
}

fn work() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..ROUNDS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
}
