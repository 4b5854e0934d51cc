//! Watches over the threads that every receipt depends on. Without one of them the bridge could only answer 503 for
//! ever, so it ends itself, and its supervisor starts it again.

use std::time::{Duration, Instant};

use rdkafka::producer::Producer as _;

use super::{lanes::Lanes, thread::end};

/// The time between two looks, and the number of looks in a row that a producer may be silent; librdkafka gives its
/// statistics every 5 s. The limit counts looks, not time, so that a process that was suspended for a while may go on.
const EVERY: Duration = Duration::from_secs(1);
const SILENT_MAX: u32 = 20;

/// The last count heard of each producer, and the looks since then. Each lane has two producers: a sum of both would
/// hide the silent one.
#[derive(Default)]
pub(super) struct Watch {
    heard: Vec<[(usize, u32); 2]>,
    looked: Option<Instant>,
}

impl Watch {
    /// Ends the process when a producer was silent for too long: its own thread or the thread that polls it is dead.
    pub(super) fn look(&mut self, lanes: &Lanes) {
        if self.looked.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        self.heard.resize(lanes.iter().len(), [(0, 0); 2]);
        for (lane, heard) in lanes.iter().zip(&mut self.heard) {
            for (producer, (before, silent)) in [Some(lane.current()), lane.made_alone()].iter().zip(heard) {
                let now = producer.as_ref().map(|producer| producer.context().heard());
                *silent = if now == Some(*before) { *silent + 1 } else { 0 };
                *before = now.unwrap_or_default();
                if *silent >= SILENT_MAX {
                    end(&format!(
                        "nothing was heard of {}'s producer for {SILENT_MAX} s: a thread is dead or hangs",
                        lane.label
                    ));
                }
            }
        }
    }
}
