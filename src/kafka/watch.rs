//! Whether the threads that every receipt depends on are at work. Without one of them the bridge could only answer 503 for
//! ever: then it ends itself, so that whoever runs it starts it again.

use std::time::{Duration, Instant};

use rdkafka::producer::Producer as _;

use super::{lanes::Lanes, thread::end};

/// How often is looked, and how often in a row a producer may be silent: librdkafka gives its statistics every
/// 5 s. Counted in looks, not in time: a process that was stopped for a while is not ended when it goes on.
const EVERY: Duration = Duration::from_secs(1);
const SILENT_MAX: u32 = 20;

/// What was last heard of each producer, two of them a lane: a sum of both would hide the one that is silent.
#[derive(Default)]
pub(super) struct Watch {
    heard: Vec<[(usize, u32); 2]>,
    looked: Option<Instant>,
}

impl Watch {
    /// Ends the process when nothing was heard of a producer for too long: its own thread or the one that polls it is dead.
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
