//! Threads with an owner, which tells each thread to end and waits for that until a deadline. If a thread that receipts
//! depend on dies, the process ends.

use std::{
    convert::Infallible,
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{Builder, JoinHandle, Thread},
    time::{Duration, Instant},
};

/// The exit code of a process that can no longer keep its promise.
const EXIT: i32 = 5;

/// A thread whose owner waits for its end.
pub(super) struct Owned {
    handle: JoinHandle<()>,
    /// This channel closes at the thread's end.
    ended: mpsc::Receiver<Infallible>,
}

impl Owned {
    /// Starts a thread whose panic ends the process. A system without a free thread ends the process too.
    pub(super) fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Self {
        let guarded = move || {
            let _guard = Guard(name);
            run();
        };
        match Self::start(name, guarded) {
            Ok(thread) => thread,
            Err(error) => end(&format!("the thread {name} could not be started: {error}")),
        }
    }

    /// Starts a thread that no receipt depends on.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn start(name: &'static str, run: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let (alive, ended) = mpsc::sync_channel(0);
        let handle = Builder::new().name(name.to_owned()).spawn(move || {
            let _alive: mpsc::SyncSender<Infallible> = alive;
            run();
        })?;
        Ok(Self { handle, ended })
    }

    /// The handle for unparking the thread.
    pub(super) fn thread(&self) -> Thread {
        self.handle.thread().clone()
    }

    /// Waits for the thread's end until `deadline`. A thread that takes longer is left alone.
    pub(super) fn join_by(self, deadline: Instant) {
        let patience = deadline.saturating_duration_since(Instant::now());
        if self.ended.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Disconnected) {
            let _ = self.handle.join();
        }
    }
}

/// Threads of one kind that come and go.
#[derive(Default)]
pub(super) struct Several(Mutex<Vec<Owned>>);

impl Several {
    pub(super) fn add(&self, thread: Owned) {
        let mut threads = self.lock();
        threads.retain(|thread| !thread.handle.is_finished());
        threads.push(thread);
    }

    pub(super) fn join_by(&self, deadline: Instant) {
        let threads = mem::take(&mut *self.lock());
        threads.into_iter().for_each(|thread| thread.join_by(deadline));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Owned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A signal for threads to end.
#[derive(Default)]
pub(super) struct Stop {
    told: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(super) fn tell(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    pub(super) fn is_told(&self) -> bool {
        *self.lock()
    }

    /// Sleeps for `time`, or until the signal; true when the signal was given, now or before.
    pub(super) fn is_told_within(&self, time: Duration) -> bool {
        let told = self.changed.wait_timeout_while(self.lock(), time, |told| !*told);
        *told.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Guard(&'static str);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            end(&format!("the thread {} is dead", self.0));
        }
    }
}

/// Ends the process. No answer becomes wrong by that: the sender repeats every event that was not answered 200.
///
/// The end is immediate, not by way of `main`: with threads dead or hanging, an orderly end might wait for one of them
/// for ever.
pub fn end(why: &str) -> ! {
    tracing::error!("this process ends itself, as it could keep its promise no longer: {why}");
    std::process::exit(EXIT);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_thread_is_waited_for_until_the_deadline() {
        let soon = || Instant::now() + Duration::from_millis(50);
        let stop = Arc::new(Stop::default());
        let start = || {
            let stop = Arc::clone(&stop);
            Owned::spawn("waits", move || while !stop.is_told_within(Duration::from_secs(3600)) {})
        };
        let (hangs, ends) = (start(), start());
        hangs.join_by(soon());
        assert!(!ends.handle.is_finished(), "nobody has told it");
        stop.tell();
        let started = Instant::now();
        ends.join_by(started + Duration::from_secs(60));
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
