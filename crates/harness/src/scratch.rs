//! Folders and ports of this process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// `<target>/harness`: what is fetched once, and below it what a run leaves behind. It follows `CARGO_TARGET_DIR`.
pub fn harness() -> PathBuf {
    profile().parent().unwrap().join("harness")
}

/// The bridge under test. Cargo builds it for every integration test and bench of the bridge's package, before they run.
pub fn causeway() -> PathBuf {
    profile().join("causeway")
}

/// `<target>/debug` or `<target>/release`: tests and benches run from `deps` in it.
fn profile() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).expect("a folder of cargo's").to_owned()
}

/// A new folder for `name` in this process's run folder, `<target>/harness/run/<pid>`.
///
/// It stays when the test ends, so that the servers' logs can be read; the next run removes it.
pub fn dir(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let dir = run().join(format!("{}-{name}", COUNT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// A loopback port that nothing listens on, for a server that can't be told port 0.
///
/// It lies below Linux's ephemeral ports (32768 and up): while a broker is down, no outgoing connection can take its
/// port, and no client that dials it can end up connected to itself. Processes start at different places, so that two
/// test runs side by side do not meet between our look at the port and the server's bind.
pub fn port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    const STRIDE: u32 = 64;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (std::process::id() * STRIDE + next) % COUNT;
        let port = u16::try_from(port).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT);
}

/// This process's run folder; made on first use, when those of ended processes are removed.
///
/// A process holds the lock on its folder's `lock` file for as long as it lives, however it ends: a folder whose lock
/// can be had belongs to nobody.
fn run() -> &'static Path {
    static RUN: OnceLock<(PathBuf, File)> = OnceLock::new();
    let (dir, _lock) = RUN.get_or_init(|| {
        let runs = harness().join("run");
        fs::create_dir_all(&runs).unwrap();
        // One process at a time, or a sweep could take a folder between its creation and its lock.
        let sweep = File::create(runs.join("lock")).unwrap();
        sweep.lock().unwrap();
        for entry in fs::read_dir(&runs).unwrap().flatten() {
            let stale = File::open(entry.path().join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
            if stale {
                // A server that dies this moment may still write; then the next run removes the folder.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let dir = runs.join(std::process::id().to_string());
        fs::create_dir_all(&dir).unwrap();
        let lock = File::create(dir.join("lock")).unwrap();
        lock.lock().unwrap();
        (dir, lock)
    });
    dir
}
