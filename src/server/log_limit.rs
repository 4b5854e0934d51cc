//! A ceiling on log lines.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// At most ten lines of a kind are logged a second, and the others are counted: refusals come by the thousand under
/// overload, and anyone who can connect can fail a handshake.
pub struct LogLimit {
    what: &'static str,
    second: AtomicU64,
    logged: AtomicU64,
}

impl LogLimit {
    const A_SECOND: u64 = 10;

    /// For lines about `what`, in the plural.
    pub fn new(what: &'static str) -> Self {
        Self { what, second: AtomicU64::new(0), logged: AtomicU64::new(0) }
    }

    pub fn run(&self, log: impl FnOnce()) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        if self.second.swap(now, Ordering::Relaxed) != now {
            let before = self.logged.swap(0, Ordering::Relaxed);
            if before > Self::A_SECOND {
                tracing::warn!("{} more {} were not logged", before - Self::A_SECOND, self.what);
            }
        }
        if self.logged.fetch_add(1, Ordering::Relaxed) < Self::A_SECOND {
            log();
        }
    }
}
