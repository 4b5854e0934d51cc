//! The binary: the command line and the exit code are in `causeway::cli`.

use std::process::ExitCode;

/// mimalloc instead of the system's allocator: every event is allocated on one thread and freed on another, and the
/// system's allocator takes locks for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    causeway::cli::run()
}
