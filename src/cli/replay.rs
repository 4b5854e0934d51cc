//! `causeway replay`: dead letters go through the bridge's own path again, once each.

mod foresight;
mod letter;
mod passage;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    time::{Duration, Instant},
};

use console::style;
use foresight::Foresight;
use indicatif::{ProgressBar, ProgressStyle};
use letter::{Letter, Skipped};
use passage::{Passage, Sent};
use serde_json::{Value as Json, json};

use super::{
    Exit, Failure,
    findings::say,
    runtime,
    target::{Target, TargetArgs},
    topics::require,
};
use crate::{
    config::{Config, RECORD_OVERHEAD_BYTES_MAX},
    kafka::{
        Connection, Receipt,
        progress::{self, Marker, Place},
        reader::{Reader, Start, Stored},
    },
    record::dead_letter,
};

/// Replay dead letters through the bridge's own path, once each: events that can be read now go to their feed's topic.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  causeway replay --config causeway.toml --dry-run    what would become of each, and why
  causeway replay --config causeway.toml              all that came since the last run
  causeway replay --max 10                            ten of them, to see

It goes on where the last run ended, and ends with the records that are there when it starts.
Progress is kept when the records are committed: as marks in the dead-letter topic (header
causeway_replayed), which live as long as the dead letters, and in the consumer group
causeway-replay. A crash in between can store up to 64 events again, with the same ce_source, ce_id
and causeway_body. A body that still cannot be read becomes a dead letter again, with its attempts
counted. It is skipped when they are --attempts-max; after a fix --from-beginning reaches it. Ctrl-C
ends after the records that are on their way.
Rights needed beside the bridge's own: Read on the dead-letter topic and on that group. Run one at a
time.
Exit codes: 0 done; 1 stopped at a record that could not be committed: the next run begins with it.")]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// End after this many records.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Only say what would happen.
    #[arg(long)]
    dry_run: bool,
    /// Skip dead letters that were replayed this many times already.
    #[arg(long, value_name = "N", default_value_t = 3)]
    attempts_max: u32,
    /// Begin with the oldest record: events that earlier runs stored are stored once more.
    #[arg(long)]
    from_beginning: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// The most records on their way at a time.
const BATCH_RECORDS: usize = 64;

/// The consumer group that keeps the progress.
const GROUP: &str = "causeway-replay";

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let target = args.target.load(&[])?;
    let connection = Connection::new(&target.config);
    require(&target, &connection, &target.config.topics())?;
    let topic = &target.config.dead_letter.topic;
    let unread = |error| {
        Failure::new(format!(
            "{topic} could not be read from {}: {error}\n  may this user Read the topic and the group {GROUP}?",
            connection.brokers()
        ))
    };
    let (start, missed) = if args.from_beginning {
        (Start::Beginning, None)
    } else {
        let places = progress::find(&connection, GROUP, topic).map_err(unread)?;
        (
            Start::At(places.iter().map(|place| (topic.clone(), place.partition, place.next)).collect()),
            missed(topic, &places),
        )
    };
    let reader = Reader::open(&connection, GROUP, std::slice::from_ref(topic), start).map_err(unread)?;
    let behind = reader.behind().map_err(Failure::new)?;
    let mut replay = Replay {
        args,
        target: &target,
        config: &target.config,
        reader,
        taken: 0,
        bar: bar(args, behind),
        summary: Summary::default(),
        shown: Vec::new(),
        missed,
    };
    if args.dry_run {
        replay.foresee(Foresight::new(&target)?)?;
    } else {
        runtime()?.block_on(replay.run(&connection))?;
    }
    replay.tell()
}

/// A warning about dead letters that retention deleted before any run read them.
fn missed(topic: &str, places: &[Place]) -> Option<String> {
    let places: Vec<_> = places.iter().filter(|place| place.missed > 0).collect();
    let records: i64 = places.iter().map(|place| place.missed).sum();
    let partitions: Vec<_> = places.iter().map(|place| place.partition.to_string()).collect();
    (records > 0).then(|| {
        format!(
            "up to {records} dead letters were deleted from {topic} before a run came to them (partitions {}): raise its retention.ms, or replay more often",
            partitions.join(", ")
        )
    })
}

fn bar(args: &Args, behind: i64) -> ProgressBar {
    if args.dry_run || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let behind = u64::try_from(behind).unwrap_or(0);
    let bar = ProgressBar::new(args.max.map_or(behind, |max| max.min(behind)));
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} dead letters, {per_sec}, {eta} left");
    style.map_or_else(|_| ProgressBar::hidden(), |style| bar.with_style(style))
}

/// One run over the dead letters.
struct Replay<'a> {
    args: &'a Args,
    target: &'a Target,
    config: &'a Config,
    reader: Reader,
    /// The number of records read so far.
    taken: u64,
    bar: ProgressBar,
    summary: Summary,
    /// The result of `--dry-run` for each record, for `--json`.
    shown: Vec<Json>,
    /// The warning about dead letters that were deleted before any run read them.
    missed: Option<String>,
}

/// The records of a run, counted by their outcome.
#[derive(Debug, Default)]
struct Summary {
    replayed: u64,
    still_dead: u64,
    skipped_stubs: u64,
    skipped_empty: u64,
    skipped_attempts: u64,
    /// The record at which the run stopped, and why.
    failed: Option<String>,
}

/// The outcome of a record that is done.
enum Outcome {
    Stored(Receipt),
    Skipped(Skipped),
}

impl Replay<'_> {
    /// Sends the records through the bridge in batches, and keeps the progress after each batch.
    async fn run(&mut self, connection: &Connection) -> Result<(), Failure> {
        let passage = Passage::open(self.target, connection)?;
        let marker = Marker::new(connection, &self.config.dead_letter.topic).map_err(Failure::new)?;
        while self.summary.failed.is_none() && !passage.stop.is_cancelled() {
            let batch = tokio::task::block_in_place(|| self.batch())?;
            if batch.is_empty() {
                break;
            }
            let attempts_max = self.args.attempts_max;
            let send = |record| {
                let sent = Letter::of(&record, self.config, attempts_max).map(|letter| passage.send(letter));
                (record, sent)
            };
            let sent: Vec<_> = batch.into_iter().map(send).collect();
            self.settle(&passage, &marker, sent).await;
        }
        if passage.stop.is_cancelled() && self.summary.failed.is_none() {
            self.summary.failed = Some("stopped: the next run goes on from here".to_owned());
        }
        tokio::task::block_in_place(|| passage.producers.drain(Instant::now()));
        Ok(())
    }

    /// The next batch. Its size bounds the number of records that a crash can repeat.
    fn batch(&mut self) -> Result<Vec<Stored>, Failure> {
        let ingress = &self.config.ingress;
        let (records_max, bytes_max) = (BATCH_RECORDS.min(ingress.in_flight_max), ingress.queue_bytes_max / 2);
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < records_max && bytes + 2 * ingress.body_bytes_max + RECORD_OVERHEAD_BYTES_MAX <= bytes_max {
            // Only the first record is waited for; later ones may go into the next batch.
            let Some(record) = self.next(batch.is_empty())? else { break };
            bytes += 2 * record.value.len() + RECORD_OVERHEAD_BYTES_MAX;
            batch.push(record);
        }
        Ok(batch)
    }

    /// Waits for the receipts, in order. The progress of a partition ends before its first record without a receipt.
    async fn settle(&mut self, passage: &Passage, marker: &Marker, sent: Vec<(Stored, Result<Sent, Skipped>)>) {
        let mut progress = BTreeMap::new();
        let mut stuck = BTreeSet::new();
        for (record, sent) in sent {
            let outcome = match sent {
                Ok(sent) => passage.receipt(sent).await.map(Outcome::Stored),
                Err(skipped) => Ok(Outcome::Skipped(skipped)),
            };
            match outcome {
                Err(why) => {
                    stuck.insert(record.partition);
                    self.summary.failed.get_or_insert_with(|| format!("{}: {why}", place(&record)));
                }
                Ok(outcome) if !stuck.contains(&record.partition) => {
                    self.summary.count(&outcome, &self.config.dead_letter.topic);
                    progress.insert(record.partition, record);
                    self.bar.inc(1);
                }
                // This record is done, but the next run repeats it, because one before it is not done.
                Ok(_) => {}
            }
        }
        for record in progress.values() {
            if let Err(why) = self.keep(marker, record).await {
                let why = format!("{}: the progress could not be kept: {why}", place(record));
                self.summary.failed.get_or_insert(why);
            }
        }
    }

    /// Keeps the progress up to and with `record`: first as a mark that lasts, then in the group for a quick start.
    async fn keep(&self, marker: &Marker, record: &Stored) -> Result<(), String> {
        let Stored { topic, partition, offset, .. } = record;
        let next = offset + 1;
        let mark = marker.mark(*partition, next).await;
        let mark = mark.map_err(|error| format!("{topic} does not take its mark: {error}"))?;
        let committed = tokio::task::block_in_place(|| self.reader.commit(topic, *partition, next, mark));
        committed.map_err(|error| format!("the group {GROUP} does not take it: {error}"))
    }

    /// Prints for each record what a replay would do.
    fn foresee(&mut self, mut foresight: Foresight<'_>) -> Result<(), Failure> {
        while let Some(record) = self.next(true)? {
            let (readable, what) = match Letter::of(&record, self.config, self.args.attempts_max) {
                Ok(letter) => self.foresee_letter(&letter, &record, &mut foresight),
                Err(skipped) => {
                    self.summary.skip(skipped);
                    (None, format!("skipped: {skipped}"))
                }
            };
            if self.args.json {
                self.shown.push(json!({ "partition": record.partition, "offset": record.offset, "readable": readable, "what": what }));
            } else {
                let mark = match readable {
                    Some(true) => style("readable  ").green(),
                    Some(false) => style("still dead").red(),
                    None => style("skipped   ").dim(),
                };
                say(format_args!("{}  {mark}  {what}", place(&record)))?;
            }
        }
        Ok(())
    }

    fn foresee_letter(
        &mut self,
        letter: &Letter,
        record: &Stored,
        foresight: &mut Foresight<'_>,
    ) -> (Option<bool>, String) {
        match foresight.of(letter) {
            Ok(topic) => {
                self.summary.replayed += 1;
                let refused_by_topic = record.text(dead_letter::STAGE) == Some("PRODUCE");
                let before = record
                    .text(dead_letter::REASON)
                    .filter(|_| refused_by_topic)
                    .map(|reason| format!("; before: {reason}"));
                (Some(true), format!("goes to {topic}{}", before.unwrap_or_default()))
            }
            Err(why) => {
                self.summary.still_dead += 1;
                (Some(false), why)
            }
        }
    }

    /// The next record that was there at the start. `None` at the end, after `--max`, or, without `wait`, if none came.
    fn next(&mut self, wait: bool) -> Result<Option<Stored>, Failure> {
        if self.args.max.is_some_and(|max| self.taken >= max) {
            return Ok(None);
        }
        let patience = if wait { Duration::from_millis(100) } else { Duration::ZERO };
        loop {
            let read = self.reader.next(patience).map_err(|error| {
                Failure::new(format!(
                    "{} could not be read on: {error}\n  is the cluster up, and may this user Read the topic and the group {GROUP}?",
                    self.config.dead_letter.topic
                ))
            })?;
            match read {
                Some(record) if self.reader.was_there(&record) && progress::mark_of(&record).is_none() => {
                    self.taken += 1;
                    return Ok(Some(record));
                }
                Some(_) => {}
                None if !wait || self.reader.behind().map_err(Failure::new)? == 0 => return Ok(None),
                None => {}
            }
        }
    }

    /// The command that reaches dead letters that earlier runs left behind, because the progress is past them.
    fn left(&self) -> Option<String> {
        let Summary { skipped_attempts, .. } = self.summary;
        if skipped_attempts == 0 && (self.taken > 0 || self.args.max == Some(0)) {
            return None;
        }
        let what = match skipped_attempts {
            0 => "Nothing came since the last run. Dead letters that earlier runs could not replay are still there"
                .to_owned(),
            _ => {
                format!("{skipped_attempts} were replayed as often as --attempts-max allows, and are still there")
            }
        };
        let attempts_max = self.args.attempts_max.saturating_add(1);
        let command = self.target.command(&format!("replay --from-beginning --attempts-max {attempts_max}"));
        Some(format!(
            "{what}: after a fix `{command}` replays them, and stores once more the events that earlier runs stored"
        ))
    }

    /// Prints the summary, and returns the exit code.
    fn tell(&self) -> Result<Exit, Failure> {
        self.bar.finish_and_clear();
        let Summary { replayed, still_dead, skipped_stubs, skipped_empty, skipped_attempts, failed } = &self.summary;
        let left = self.left();
        if self.args.json {
            let summary = json!({
                "dry_run": self.args.dry_run,
                "replayed": replayed,
                "still_dead": still_dead,
                "skipped_stubs": skipped_stubs,
                "skipped_empty": skipped_empty,
                "skipped_attempts": skipped_attempts,
                "failed": failed,
                "left": left,
                "missed": self.missed,
                "records": self.args.dry_run.then_some(&self.shown),
            });
            say(format_args!("{summary:#}"))?;
        } else {
            if let Some(missed) = &self.missed {
                eprintln!("warning: {missed}");
            }
            if let Some(why) = failed {
                eprintln!("error: {why}");
            }
            let (would, dead) = if self.args.dry_run {
                ("would be replayed", "would be dead letters again")
            } else {
                ("replayed", "dead letters again")
            };
            say(format_args!(
                "{replayed} {would}, {still_dead} {dead}; skipped: {skipped_stubs} stubs, {skipped_empty} empty, {skipped_attempts} with too many attempts"
            ))?;
            if let Some(left) = left {
                say(left)?;
            }
        }
        Ok(if failed.is_none() { Exit::Done } else { Exit::Failed })
    }
}

impl Summary {
    fn count(&mut self, outcome: &Outcome, dead_letters: &str) {
        match outcome {
            Outcome::Stored(receipt) if receipt.topic() == dead_letters => self.still_dead += 1,
            Outcome::Stored(_) => self.replayed += 1,
            Outcome::Skipped(skipped) => self.skip(*skipped),
        }
    }

    fn skip(&mut self, skipped: Skipped) {
        match skipped {
            Skipped::Stub => self.skipped_stubs += 1,
            Skipped::Empty => self.skipped_empty += 1,
            Skipped::Attempts => self.skipped_attempts += 1,
        }
    }
}

fn place(record: &Stored) -> String {
    format!("{}/{}@{}", record.topic, record.partition, record.offset)
}
