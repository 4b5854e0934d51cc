//! `causeway tail`: committed events, decoded.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use super::{
    Exit, Failure,
    decode::{Decoded, Decoder, json_line, text_line},
    findings::say,
    target::{Target, TargetArgs},
    topics::require,
};
use crate::{
    config::Config,
    kafka::{
        Connection, KafkaFault,
        follower::{Follower, Heard},
        millis_now, progress,
        reader::{Start, Stored},
    },
};

/// Show what was committed, decoded: JSON lines, or one coloured line per event on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  causeway tail                                 all feeds of the `causeway dev` beside it, from now on
  causeway tail --feed journey --since 10m      the last ten minutes of one feed, then what comes
  causeway tail --issue 42 --since 1d --no-follow | jq .event
  causeway tail --dead-letters --beginning --no-follow

Rights needed: Read on the topics, Describe on the consumer group causeway-tail.
In a JSON line, extras lists the JSON pointers of the members that no field of the schema holds.")]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Only these feeds.
    #[arg(long, value_name = "FEED")]
    feed: Vec<String>,
    /// Only the dead letters.
    #[arg(long, conflicts_with_all = ["feed", "issue", "agent", "event_type"])]
    dead_letters: bool,
    /// Only events of this issue (meta_data.issue_id).
    #[arg(long, value_name = "ID")]
    issue: Option<String>,
    /// Only events of this agent (data.rep_id or data.agent_id).
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Only events of this type.
    #[arg(long = "type", value_name = "EVENT_TYPE")]
    event_type: Option<String>,
    /// Begin this long ago: 30s, 10m, 2h, 1d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    since: Option<Duration>,
    /// Begin with the oldest record.
    #[arg(long, conflicts_with = "since")]
    beginning: bool,
    /// End with the records that are there now.
    #[arg(long)]
    no_follow: bool,
    /// End after this many events.
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// JSON lines on a terminal too.
    #[arg(long)]
    json: bool,
}

/// The consumer group that identifies the reader to the brokers. Nothing is committed to it.
const GROUP: &str = "causeway-tail";

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let target = args.target.load(&[])?;
    let Target { config, dev, .. } = &target;
    let mut decoder = Decoder::new(config)?;
    let topics = args.topics(config)?;
    let since = args.since.map(|age| millis_now() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let start = match since {
        // The embedded broker cannot look up by time, so all is read here and older records are left out below.
        Some(_) if dev.as_ref().is_some_and(|dev| dev.embedded) => Start::Beginning,
        Some(time) => Start::Since(time),
        None if args.beginning || args.no_follow => Start::Beginning,
        None => Start::End,
    };
    let connection = Connection::new(config);
    require(&target, &connection, &topics)?;
    let failed = |error: KafkaFault| unread(&error, &topics, &connection);
    let mut follower = Follower::open(&connection, GROUP, &topics, start).map_err(failed)?;
    let as_json = args.json || !std::io::stdout().is_terminal();
    let mut shown = 0;
    let mut outage = Outage::default();
    while args.count.is_none_or(|count| shown < count) {
        let record = match follower.next(Duration::from_millis(200)).map_err(failed)? {
            Heard::Record(record) => record,
            Heard::Away(error) if args.no_follow && outage.lasts() > PATIENCE => return Err(failed(error)),
            Heard::Away(error) => {
                outage.begin(&error, &connection);
                continue;
            }
            Heard::Nothing if args.no_follow && follower.reader().behind().map_err(failed)? == 0 => break,
            Heard::Nothing => continue,
        };
        outage = Outage::default();
        if progress::mark_of(&record).is_some()
            || args.no_follow && !follower.reader().was_there(&record)
            || since.is_some_and(|since| record.timestamp.is_some_and(|time| time < since))
        {
            continue;
        }
        let decoded = decoder.decode(&record);
        if !args.wants(&record, &decoded) {
            continue;
        }
        let line = if as_json { json_line(&record, &decoded) } else { text_line(&record, &decoded) };
        if !say(line)? {
            break;
        }
        shown += 1;
    }
    Ok(Exit::Done)
}

/// With `--no-follow`, an outage longer than this is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// An outage: the time since which no broker answers. The user is told once.
#[derive(Default)]
struct Outage(Option<Instant>);

impl Outage {
    fn begin(&mut self, error: &KafkaFault, connection: &Connection) {
        if self.0.is_none() {
            eprintln!(
                "note: no answer from {} ({error}): waiting, and reading on once there is one",
                connection.brokers()
            );
            self.0 = Some(Instant::now());
        }
    }

    fn lasts(&self) -> Duration {
        self.0.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

fn unread(error: &KafkaFault, topics: &[String], connection: &Connection) -> Failure {
    Failure::new(format!(
        "{} could not be read from {}: {error}\n  is the cluster up, and may this user Read the topics and Describe the group {GROUP}?",
        topics.join(", "),
        connection.brokers()
    ))
}

impl Args {
    fn topics(&self, config: &Config) -> Result<Vec<String>, Failure> {
        if self.dead_letters {
            return Ok(vec![config.dead_letter.topic.clone()]);
        }
        if self.feed.is_empty() {
            return Ok(config.topics());
        }
        let mut topics = Vec::new();
        for label in &self.feed {
            let feed = config.feeds.iter().find(|feed| feed.label == *label);
            let feed = feed.ok_or_else(|| Failure::no_feed("--feed", label, config))?;
            topics.extend(feed.topics().into_iter().map(str::to_owned));
        }
        Ok(topics)
    }

    fn wants(&self, record: &Stored, decoded: &Decoded) -> bool {
        let event = decoded.event.as_ref().ok();
        let is = |pointer: &str, wanted: &str| match event.and_then(|event| event.pointer(pointer)) {
            Some(Json::String(text)) => text == wanted,
            Some(Json::Number(number)) => number.to_string() == wanted,
            _ => false,
        };
        self.issue.as_deref().is_none_or(|issue| is("/meta_data/issue_id", issue))
            && self.agent.as_deref().is_none_or(|agent| is("/data/rep_id", agent) || is("/data/agent_id", agent))
            && self.event_type.as_deref().is_none_or(|wanted| record.text("ce_type") == Some(wanted))
    }
}

/// Reads an age such as `30s`, `10m`, `2h` or `1d`.
fn age(text: &str) -> Result<Duration, String> {
    let unit = |suffix: char| match suffix {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3_600),
        'd' => Some(86_400),
        _ => None,
    };
    let parsed =
        text.char_indices().last().and_then(|(at, suffix)| Some((text.get(..at)?.parse::<u64>().ok()?, unit(suffix)?)));
    let seconds = parsed.and_then(|(number, unit)| number.checked_mul(unit));
    seconds.map(Duration::from_secs).ok_or_else(|| "an age is a number with s, m, h or d, such as 10m".to_owned())
}
