//! `causeway send`: plays ASAPP's side of the wire.

mod client;
mod endpoint;
mod generate;
mod load;
mod log;
mod outcome;
mod progress;
mod report;
mod schedule;
mod source;
mod templates;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use clap::value_parser;

use self::{
    endpoint::EndpointArgs,
    load::{Load, Rule},
    log::LogArgs,
    progress::Progress,
    report::Summary,
    schedule::{Pace, Schedule},
    source::SourceArgs,
};
use super::{Exit, Failure, findings::say, runtime, stop_signal};

/// Post events as ASAPP does: each waits for its 200, is tried again, and is dropped after the last attempt.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  causeway send .causeway/journey.json                    one event to the `causeway dev` beside this command
  causeway send --generate --rate 1000 --seconds 30       as much as ASAPP sends
  causeway send --generate --closed-loop --connections 32 --count 100000 --json    as much as the bridge takes
  causeway send events.ndjson --record sent.txt           what came of each event
  causeway send --generate --rate 100 --url https://bridge.example:8443/ --ca ca.crt --cert sender.crt --key sender.key

With --rate an event's latency counts from the time it was due, also when no connection was free. With more
connections (or --http2 --streams) more events can wait for their answers at the same time.

Exit codes: 0 every event was answered 200, 1 some were not, or none could be sent.")]
pub struct Args {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    rule: Rule,
    #[command(flatten)]
    log: LogArgs,
    /// Print the result as one JSON object.
    #[arg(long, help_heading = "Results")]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Load")]
struct LoadArgs {
    /// Events a second, due at even times however slow the answers are [default with --generate: 100].
    #[arg(long, value_name = "N", value_parser = rate, conflicts_with = "closed_loop")]
    rate: Option<f64>,
    /// Each connection posts the next event when the last one is acked or dropped [default with files].
    #[arg(long)]
    closed_loop: bool,
    /// The number of connections.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = value_parser!(u32).range(1..=65_536))]
    connections: u32,
    /// Requests at a time on each HTTP/2 connection.
    #[arg(long, value_name = "N", default_value_t = 32, requires = "http2", value_parser = value_parser!(u32).range(1..=65_536))]
    streams: u32,
    /// How many seconds to send; with --rate, all events that are due in that time.
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<Duration>,
    /// How many events to send.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Leave the first seconds out of the latencies.
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "0")]
    warm_up: Duration,
}

/// The rate of generated events without --rate, in events per second.
const GENERATED_A_SECOND: f64 = 100.0;

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let source = args.source.open(args.load.seconds.is_some() || args.load.count.is_some(), args.log.save.is_some())?;
    let log = args.log.create()?;
    let total = args.load.count.into_iter().chain(source.total).min();
    let schedule = Schedule::new(args.pace(), total, args.load.seconds);
    let summary = runtime()?.block_on(async {
        let stop = stop_signal()?;
        let endpoint = Arc::new(args.endpoint.resolve().await?);
        let load = Arc::new(Load::new(args.rule, source, schedule, log, args.load.warm_up, stop)?);
        let _progress = Progress::of(&load);
        load.run(&endpoint, args.load.connections as usize, args.load.streams as usize).await
    })?;
    if args.json {
        say(summary.json())?;
    } else {
        say(&summary)?;
    }
    Ok(exit(&summary))
}

fn exit(summary: &Summary) -> Exit {
    if summary.tally.acked == summary.tally.sent() { Exit::Done } else { Exit::Failed }
}

impl Args {
    fn pace(&self) -> Pace {
        match self.load.rate {
            Some(rate) => Pace::Rate(rate),
            None if self.source.generate && !self.load.closed_loop => Pace::Rate(GENERATED_A_SECOND),
            None => Pace::Closed,
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=1e7).contains(rate));
    rate.ok_or_else(|| "a rate is a number of events a second, such as 1000 or 0.5".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.trim_end_matches('s').parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "a time is a number of seconds, such as 30 or 0.5".to_owned())
}
