//! The command line: one file per command.

mod certificates;
mod check;
mod decode;
mod dev;
mod findings;
mod replay;
mod schemas;
mod send;
mod serve;
mod tail;
mod target;
mod topics;

use std::{io::IsTerminal, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use findings::say;
use tracing::Metadata;
use tracing_subscriber::{
    Layer as _,
    filter::{Targets, filter_fn},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::config::Config;

/// The version and, if the build saw a repository, the commit (`build.rs`).
const VERSION: &str = env!("VERSION_AND_COMMIT");

/// Takes ASAPP's real-time events over mutual TLS and commits each one to Kafka, as Avro, before it answers 200.
#[derive(Debug, Parser)]
#[command(name = "causeway", version = VERSION, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The lowest level to log: error, warn, info, debug, trace; or a level for each target: warn,causeway=debug.
    #[arg(long, global = true, env = "CAUSEWAY_LOG", value_name = "LEVEL", help_heading = "Logging")]
    log: Option<String>,
    /// The log's format; without it text on a terminal, json otherwise.
    #[arg(long, global = true, env = "CAUSEWAY_LOG_FORMAT", value_name = "FORMAT", help_heading = "Logging")]
    log_format: Option<LogFormat>,
}

const EXAMPLES: &str = "\
Examples:
  causeway dev                            everything in one process, nothing to set up
  causeway serve --config causeway.toml   the bridge
  causeway check --config causeway.toml   is everything as it must be?
  causeway send --generate --rate 100     a sender's side of the wire
  causeway tail --feed journey            what was committed, as JSON lines

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 wrong configuration or findings,
4 stopped with events that were not committed (none of them answered 200),
5 ended itself, as a thread that the promise needs was dead: start it again.";

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Args),
    Serve(serve::Args),
    Send(Box<send::Args>),
    Tail(tail::Args),
    Check(check::Args),
    Topics(topics::Args),
    Schemas(schemas::Args),
    Replay(replay::Args),
    /// Print the completions of a shell: causeway completions bash > /etc/bash_completion.d/causeway
    Completions {
        shell: clap_complete::Shell,
    },
    /// Print the manual page of causeway, or of one command: causeway man tail > causeway-tail.1
    Man {
        #[arg(value_name = "COMMAND")]
        page: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// The exit code of a command, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Done = 0,
    Failed = 1,
    /// The command line names something that does not exist.
    Usage = 2,
    /// The configuration is wrong, or a check found something.
    Findings = 3,
    /// The bridge stopped with events that were not committed.
    NotCommitted = 4,
}

/// A command's failure: its message on standard error, and its exit code.
#[derive(Debug)]
struct Failure {
    message: String,
    exit: Exit,
}

impl Failure {
    fn new(message: impl ToString) -> Self {
        Self { message: message.to_string(), exit: Exit::Failed }
    }

    fn usage(message: impl ToString) -> Self {
        Self { message: message.to_string(), exit: Exit::Usage }
    }

    fn findings(message: impl ToString) -> Self {
        Self { message: message.to_string(), exit: Exit::Findings }
    }

    fn no_feed(flag: &str, label: &str, config: &Config) -> Self {
        let known: Vec<&str> = config.feeds.iter().map(|feed| feed.label.as_str()).collect();
        Self::findings(format!("{flag} {label}: there is no such feed; there are {}", known.join(", ")))
    }
}

/// Runs the command that the process was started with, and returns its exit code.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    // A command with an output of its own logs less: else the Kafka client's attempts to connect would drown it.
    let level = match cli.command {
        Command::Serve(_) => "info",
        Command::Dev(_) => "warn",
        // These commands end by themselves and print their findings.
        Command::Check(_) | Command::Topics(_) | Command::Schemas(_) => "off",
        _ => "error",
    };
    if let Err(failure) = start_log(cli.log.as_deref().unwrap_or(level), cli.log_format) {
        eprintln!("error: {}", failure.message);
        return ExitCode::from(2);
    }
    let ended = match cli.command {
        Command::Dev(args) => dev::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Send(args) => send::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Topics(args) => topics::run(&args),
        Command::Schemas(args) => schemas::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "causeway", &mut script);
            say(String::from_utf8_lossy(&script).trim_end()).map(|_| Exit::Done)
        }
        Command::Man { page } => man(page.as_deref()),
    };
    match ended {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Prints the manual page of causeway or of one command. `help` has no page: it prints what `--help` does.
fn man(page: Option<&str>) -> Result<Exit, Failure> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let command = match page {
        None => &cli,
        Some(name) => cli.find_subcommand(name).ok_or_else(|| {
            let known: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
            Failure::usage(format!("man {name}: there is no such command; there are {}", known.join(", ")))
        })?,
    };
    let mut text = Vec::new();
    let source = concat!("causeway ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command.clone()).source(source).render(&mut text).map_err(Failure::new)?;
    say(String::from_utf8_lossy(&text).trim_end())?;
    Ok(Exit::Done)
}

/// Sends logs to standard error: standard output belongs to the command's result.
fn start_log(level: &str, format: Option<LogFormat>) -> Result<(), Failure> {
    let targets = log_targets(level)?;
    let terminal = std::io::stderr().is_terminal();
    let log = fmt::layer().with_writer(std::io::stderr);
    let log = match format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Text => log.with_ansi(terminal).with_target(false).boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(log).with(targets).with(filter_fn(shows_no_wire)).init();
    Ok(())
}

/// Hides the log of ureq's protocol, which at `trace` shows each byte of a request, passwords and tokens included.
fn shows_no_wire(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with("ureq_proto")
}

fn log_targets(level: &str) -> Result<Targets, Failure> {
    // The parser would take such a text for the name of a target, and the log would stay empty.
    if level.contains(['[', '{']) {
        let why = "--log takes levels and targets, such as warn,causeway=debug; there are no spans or fields to name";
        return Err(Failure::new(why));
    }
    level.parse().map_err(|error| Failure::new(format!("--log: {error}")))
}

/// The runtime of the commands other than the bridge.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::new)
}

/// The bridge's runtime: one worker for every two cores, because librdkafka's threads, our own and the kernel need as
/// much again. More workers would take work from each other, and each event would cost more.
fn bridge_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = cores.div_ceil(2);
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().map_err(Failure::new)
}

/// A token that the first SIGTERM or SIGINT cancels. A second signal ends the process at once.
fn stop_signal() -> Result<tokio_util::sync::CancellationToken, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = tokio_util::sync::CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::new)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::new)?;
    let told = stop.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if told.is_cancelled() {
                std::process::exit(Exit::Failed as i32);
            }
            told.cancel();
        }
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_log_takes_levels_and_targets() {
        let targets = log_targets("warn,causeway=debug").ok().unwrap();
        assert!(targets.would_enable("causeway::server", &Level::DEBUG));
        assert!(!targets.would_enable("hyper", &Level::INFO) && targets.would_enable("hyper", &Level::WARN));
        for (level, why) in [("causeway=bogus", "expected one of"), ("causeway[request]=debug", "no spans")] {
            let failure = log_targets(level).err().unwrap();
            assert!(failure.message.starts_with("--log") && failure.message.contains(why), "{}", failure.message);
        }
    }
}
