//! `causeway topics`: the topics that the bridge needs, and the state of each.

mod durability;

use std::time::{Duration, Instant};

use console::style;
use serde_json::{Value as Json, json};

use durability::{DAY_MS, age};
pub use durability::{Demands, judge};

use super::{
    Exit, Failure,
    findings::{Findings, Level, say, table},
    runtime,
    target::{Target, TargetArgs},
};
use crate::{
    config::Config,
    feed,
    kafka::{
        Connection,
        admin::{Admin, NoAnswer, Survey, Topic},
    },
    serve::not_created,
};

/// Show the topics that the bridge needs and what differs; --apply creates the missing ones.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  causeway topics --config causeway.toml           what is there, what is missing, what differs
  causeway topics --config causeway.toml --apply   create what is missing, shaped by [kafka.topics]
  causeway topics --json | jq '.topics[] | select(.state != \"ok\")'

A topic that exists is never altered: the command that would do it is shown.
Exit codes: 0 all is there; 1 the cluster does not answer, or refuses to create; 3 a topic is
missing (unless the bridge creates it: kafka.create_topics) or breaks the promise.")]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Create the topics that are missing.
    #[arg(long)]
    apply: bool,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// The time within which every broker must know a created topic.
const CREATED_WITHIN: Duration = Duration::from_secs(15);

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let target = args.target.load(&[])?;
    let demands = Demands::of(&target);
    let runtime = runtime()?;
    let admin = Admin::new(&Connection::new(&target.config)).map_err(Failure::new)?;
    let mut survey = look(&admin, &target.config, &demands, &runtime)?;
    let mut created = Vec::new();
    if args.apply && !survey.missing.is_empty() {
        if demands.embedded {
            return Err(Failure::new(
                "the embedded broker of `causeway dev` takes no request to create a topic\n  start `causeway dev` anew: it makes the topics of its configuration",
            ));
        }
        created = missing(&survey);
        runtime
            .block_on(admin.create(&created, &target.config.kafka))
            .map_err(|error| not_created(&error, &target.config, &survey))
            .map_err(|(what, remedy)| Failure::new(format!("{what}\n  {remedy}")))?;
        survey = look_until(&admin, &target.config, &demands, &runtime, &created)?;
    }
    let judged: Vec<Judged> =
        target.config.topics().into_iter().map(|name| Judged::new(&name, &survey, &target.config, &demands)).collect();
    let worst = judged.iter().map(|topic| topic.findings.worst()).max().unwrap_or(Level::Ok);
    if args.json {
        let topics: Vec<Json> = judged.iter().map(Judged::json).collect();
        say(format_args!(
            "{:#}",
            json!({ "brokers": survey.addresses(), "embedded": demands.embedded, "created": created, "topics": topics })
        ))?;
    } else {
        say(text(&judged, &created, &demands).trim_end())?;
    }
    Ok(if worst == Level::Error { Exit::Findings } else { Exit::Done })
}

/// Checks that `topics` exist, for commands that read them: a reader would wait for a missing topic without a word.
///
/// # Errors
/// No broker answers, or a topic is missing; with the remedy.
pub fn require(target: &Target, connection: &Connection, topics: &[String]) -> Result<(), Failure> {
    let admin = Admin::new(connection).map_err(Failure::new)?;
    let survey = admin.survey(topics).map_err(|error| unanswered(&error, connection.brokers()))?;
    if survey.missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> = survey.missing.iter().map(|(name, why)| format!("{name} ({why})")).collect();
    let forbidden = survey.missing.iter().any(|(_, why)| why.is_hidden());
    let remedy = if forbidden {
        "may this user Describe the topics?".to_owned()
    } else {
        format!("run `{}`", target.command("topics --apply"))
    };
    Err(Failure::findings(format!("missing: {}\n  {remedy}", missing.join(", "))))
}

fn unanswered(error: &NoAnswer, brokers: &str) -> Failure {
    Failure::new(format!("no answer from {brokers}: {error}\n  is kafka.brokers right, and the cluster up?"))
}

fn look(
    admin: &Admin,
    config: &Config,
    demands: &Demands,
    runtime: &tokio::runtime::Runtime,
) -> Result<Survey, Failure> {
    let mut survey =
        admin.survey(&config.topics()).map_err(|error| unanswered(&error, &config.kafka.brokers.join(", ")))?;
    if !demands.embedded {
        runtime.block_on(admin.describe(&mut survey));
    }
    Ok(survey)
}

/// Waits until the created topics can be used, because brokers learn of a topic one after the other.
fn look_until(
    admin: &Admin,
    config: &Config,
    demands: &Demands,
    runtime: &tokio::runtime::Runtime,
    created: &[String],
) -> Result<Survey, Failure> {
    let until = Instant::now() + CREATED_WITHIN;
    loop {
        let survey = look(admin, config, demands, runtime)?;
        let usable = |name: &String| survey.found.iter().any(|topic| topic.name == *name && topic.leaderless == 0);
        if created.iter().all(usable) || Instant::now() >= until {
            return Ok(survey);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn missing(survey: &Survey) -> Vec<String> {
    survey.missing.iter().map(|(name, _)| name.clone()).collect()
}

/// One of our topics, with its findings.
struct Judged {
    name: String,
    feed: String,
    topic: Option<Topic>,
    findings: Findings,
}

impl Judged {
    fn new(name: &str, survey: &Survey, config: &Config, demands: &Demands) -> Self {
        let feed = config.feeds.iter().find(|feed| feed.topics().contains(&name));
        let mut findings = judge(name, survey, demands);
        let topic = survey.found.iter().find(|topic| topic.name == name).cloned();
        if let Some(topic) = topic.as_ref().filter(|_| !demands.embedded) {
            compare(topic, config, demands, &mut findings);
        }
        Self {
            name: name.to_owned(),
            feed: feed.map_or(feed::DEAD_LETTER, |feed| feed.label.as_str()).to_owned(),
            topic,
            findings,
        }
    }

    fn state(&self) -> &'static str {
        match (&self.topic, self.findings.worst()) {
            (None, _) => "missing",
            (Some(_), Level::Error) => "breaks the promise",
            (Some(_), Level::Warning) => "weak",
            (Some(_), Level::Ok | Level::Note) => "ok",
        }
    }

    fn row(&self) -> Vec<String> {
        let state = match self.findings.worst() {
            Level::Error => style(self.state()).red().bold(),
            Level::Warning => style(self.state()).yellow(),
            Level::Ok | Level::Note => style(self.state()).green(),
        };
        let topic = self.topic.as_ref();
        let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let count = |count: Option<usize>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        vec![
            self.name.clone(),
            self.feed.clone(),
            count(topic.map(|topic| topic.partitions)),
            count(topic.map(|topic| topic.replication)),
            number(topic.and_then(|topic| topic.number("min.insync.replicas"))),
            age(topic.and_then(|topic| topic.number("retention.ms"))),
            state.to_string(),
        ]
    }

    fn json(&self) -> Json {
        let topic = self.topic.as_ref();
        json!({
            "topic": self.name,
            "feed": self.feed,
            "state": self.state(),
            "partitions": topic.map(|topic| topic.partitions),
            "replication": topic.map(|topic| topic.replication),
            "in_sync": topic.map(|topic| topic.in_sync),
            "leaderless": topic.map(|topic| topic.leaderless),
            "min_insync_replicas": topic.and_then(|topic| topic.number("min.insync.replicas")),
            "retention_ms": topic.and_then(|topic| topic.number("retention.ms")),
            "max_message_bytes": topic.and_then(|topic| topic.number("max.message.bytes")),
            "findings": self.findings,
        })
    }
}

/// Notes where a topic differs from the shape of those that we would create, which is no fault.
fn compare(topic: &Topic, config: &Config, demands: &Demands, findings: &mut Findings) {
    let (about, shape) = (format!("topic {}", topic.name), &config.kafka.topics);
    if let Ok(partitions) = usize::try_from(shape.partitions)
        && partitions != topic.partitions
    {
        let what = format!("has {} partitions, kafka.topics.partitions = {partitions}", topic.partitions);
        if topic.partitions < partitions {
            let alter = format!(
                "kafka-topics.sh {} --alter --topic {} --partitions {partitions}",
                demands.tool_options, topic.name
            );
            findings.add(
                Level::Note,
                &about,
                what,
                format!("{alter}\n(keys move to other partitions then: order per key is broken at that moment)"),
            );
        } else {
            findings.note(&about, what);
        }
    }
    if let Some(retention) =
        topic.number("retention.ms").filter(|millis| *millis >= DAY_MS && *millis != shape.retention_ms)
    {
        let what = format!("retention.ms = {retention}, kafka.topics.retention_ms = {}", shape.retention_ms);
        findings.add(
            Level::Note,
            &about,
            what,
            demands.alter(&topic.name, &format!("retention.ms={}", shape.retention_ms)),
        );
    }
}

fn text(judged: &[Judged], created: &[String], demands: &Demands) -> String {
    let rows: Vec<Vec<String>> = judged.iter().map(Judged::row).collect();
    let mut text = table(&["TOPIC", "FEED", "PARTITIONS", "REPLICAS", "MIN IN SYNC", "KEPT", "STATE"], &rows);
    if !created.is_empty() {
        text.push_str(&format!("\nCreated: {}\n", created.join(", ")));
    }
    if demands.embedded {
        text.push_str("\nThe embedded broker of `causeway dev` has no settings to show, no replicas, and creates no topic on request.\n");
        return text;
    }
    let mut notable = Findings::default();
    for topic in judged {
        notable.append(topic.findings.notable());
    }
    if !notable.is_empty() {
        text.push('\n');
        text.push_str(&notable.text());
    }
    text
}
