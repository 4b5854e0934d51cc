//! The threads that every receipt depends on. Without one of them the bridge could only answer 503 for ever: then it ends
//! itself, so that whoever runs it starts it again.

use std::{
    thread::Thread,
    time::{Duration, Instant},
};

use rdkafka::producer::Producer as _;

use super::Producers;

/// The exit code of a process that could keep its promise no longer.
const EXIT: i32 = 5;

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
    pub(super) fn look(&mut self, producers: &Producers) {
        if self.looked.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        self.heard.resize(producers.lanes.len(), [(0, 0); 2]);
        for (lane, heard) in producers.lanes.iter().zip(&mut self.heard) {
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

/// Starts a thread whose panic ends the process, as does a system that has no thread left.
pub(super) fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Thread {
    struct Guard(&'static str);
    impl Drop for Guard {
        fn drop(&mut self) {
            if std::thread::panicking() {
                end(&format!("the thread {} is dead", self.0));
            }
        }
    }
    let guarded = move || {
        let _guard = Guard(name);
        run();
    };
    match std::thread::Builder::new().name(name.to_owned()).spawn(guarded) {
        Ok(thread) => thread.thread().clone(),
        Err(error) => end(&format!("the thread {name} could not be started: {error}")),
    }
}

/// Ends the process. No answer is wrong by that: what was not answered 200 is sent again.
pub fn end(why: &str) -> ! {
    tracing::error!("this process ends itself, as it could keep its promise no longer: {why}");
    std::process::exit(EXIT);
}
