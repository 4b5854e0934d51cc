//! A ceiling on log lines.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Refusals come by the thousand under overload: at most ten of them a second are logged, the others are counted.
#[derive(Default)]
pub(super) struct LogLimit {
    second: AtomicU64,
    logged: AtomicU64,
}

impl LogLimit {
    const A_SECOND: u64 = 10;

    pub(super) fn run(&self, log: impl FnOnce()) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        if self.second.swap(now, Ordering::Relaxed) != now {
            let before = self.logged.swap(0, Ordering::Relaxed);
            if before > Self::A_SECOND {
                tracing::warn!("{} more refusals were not logged", before - Self::A_SECOND);
            }
        }
        if self.logged.fetch_add(1, Ordering::Relaxed) < Self::A_SECOND {
            log();
        }
    }
}
