//! Parse the command line, run it, exit code.

use std::process::ExitCode;

/// Every event allocates on one thread and frees on another, which the system's allocator pays for with locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    causeway::cli::run()
}
