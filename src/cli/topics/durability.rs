//! The state and settings of a topic, judged by the promise.

use crate::{
    cli::{
        findings::{Findings, Level},
        target::Target,
    },
    kafka::admin::{Missing, Survey, Topic},
};

/// The demands on every topic, and the words for the remedies.
pub struct Demands {
    message_bytes_max: i64,
    create_topics: bool,
    /// Whether the broker is librdkafka's own, inside `causeway dev`.
    pub embedded: bool,
    /// The options that connect Kafka's own tools to the cluster.
    pub tool_options: String,
    /// The command that creates the missing topics.
    apply: String,
}

impl Demands {
    /// The demands of the target's configuration.
    pub fn of(target: &Target) -> Self {
        let kafka = &target.config.kafka;
        let secured =
            kafka.client.get("security.protocol").is_some_and(|protocol| !protocol.eq_ignore_ascii_case("plaintext"));
        Self {
            message_bytes_max: kafka.message_bytes_max(),
            create_topics: kafka.create_topics,
            embedded: target.dev.as_ref().is_some_and(|dev| dev.embedded),
            tool_options: format!(
                "--bootstrap-server {}{}",
                kafka.brokers.join(","),
                if secured { " --command-config client.properties" } else { "" }
            ),
            apply: target.command("topics --apply"),
        }
    }

    /// The command that changes a topic's setting.
    pub fn alter(&self, topic: &str, setting: &str) -> String {
        format!(
            "kafka-configs.sh {} --alter --entity-type topics --entity-name {topic} --add-config {setting}",
            self.tool_options
        )
    }
}

/// All findings about the topic `name`: that it is missing, or where its state and settings break the promise.
pub fn judge(name: &str, survey: &Survey, demands: &Demands) -> Findings {
    let mut findings = Findings::default();
    let about = format!("topic {name}");
    if let Some(topic) = survey.found.iter().find(|topic| topic.name == name) {
        judge_state(topic, &about, demands, &mut findings);
        judge_settings(topic, &about, demands, &mut findings);
        if findings.worst() < Level::Warning {
            findings.ok(&about, shape(topic));
        }
        return findings;
    }
    let why = survey.missing.iter().find(|(missing, _)| missing == name).map_or(Missing::NotNamed, |(_, why)| *why);
    match why {
        why if why.is_hidden() => {
            findings.add(
                Level::Error,
                &about,
                format!("cannot be seen ({why})"),
                "grant the bridge's user Write, Describe and DescribeConfigs on it",
            );
        }
        _ if demands.create_topics => {
            findings.note(&about, "is missing; the bridge creates it at start (kafka.create_topics = true)");
        }
        why => findings.add(
            Level::Error,
            &about,
            format!("is missing ({why}): the bridge does not become ready"),
            format!("run `{}`, or set kafka.create_topics = true", demands.apply),
        ),
    }
    findings
}

fn judge_state(topic: &Topic, about: &str, demands: &Demands, findings: &mut Findings) {
    if topic.leaderless > 0 {
        findings.add(
            Level::Error,
            about,
            format!(
                "{} of {} partitions have no leader: their events are held, then answered 503",
                topic.leaderless, topic.partitions
            ),
            format!(
                "start the brokers that hold them: kafka-topics.sh {} --describe --unavailable-partitions --topic {}",
                demands.tool_options, topic.name
            ),
        );
    }
    if demands.embedded {
        return;
    }
    let min = topic.number("min.insync.replicas");
    let in_sync = i64::try_from(topic.in_sync).unwrap_or(i64::MAX);
    let remedy = "bring the brokers that hold the other replicas back";
    match min {
        Some(min) if in_sync < min && topic.replication as i64 >= min => findings.add(
            Level::Error,
            about,
            format!("a partition has {in_sync} of {} replicas in sync now, min.insync.replicas is {min}: nothing is committed to it",
 topic.replication),
            remedy,
        ),
        _ if topic.in_sync < topic.replication => findings.add(
            Level::Warning,
            about,
            format!("a partition has {in_sync} of {} replicas in sync now", topic.replication),
            remedy,
        ),
        _ => {}
    }
    let more = format!(
        "kafka-reassign-partitions.sh {} --execute --reassignment-json-file ... with 3 replicas for each partition",
        demands.tool_options
    );
    match topic.replication {
        0 | 1 => {
            findings.add(Level::Warning, about, "has 1 replica: an acked event is lost with its only broker", more);
        }
        2 => findings.add(
            Level::Warning,
            about,
            "has 2 replicas: either one lost broker stops all writes, or an acked event stands on a single broker",
            more,
        ),
        _ => {}
    }
}

/// A day in milliseconds.
pub const DAY_MS: i64 = 86_400_000;

fn judge_settings(topic: &Topic, about: &str, demands: &Demands, findings: &mut Findings) {
    let Some(settings) = &topic.settings else {
        if !demands.embedded {
            let remedy = "grant the bridge's user DescribeConfigs on it: then size and durability are checked";
            findings.add(Level::Note, about, "its settings cannot be read", remedy);
        }
        return;
    };
    let text = |setting: &str| settings.get(setting).map_or("", String::as_str);
    judge_in_sync(topic, about, demands, findings);
    if text("unclean.leader.election.enable") == "true" {
        let what =
            "unclean.leader.election.enable = true: a replica that lags may become leader, and acked events are gone";
        findings.add(Level::Error, about, what, demands.alter(&topic.name, "unclean.leader.election.enable=false"));
    }
    if let Some(max) = topic.number("max.message.bytes").filter(|max| *max < demands.message_bytes_max) {
        findings.add(
            Level::Error,
            about,
            format!(
                "max.message.bytes = {max}, below the producer's message.max.bytes = {}: the bridge does not start",
                demands.message_bytes_max
            ),
            demands.alter(&topic.name, &format!("max.message.bytes={}", demands.message_bytes_max)),
        );
    }
    if text("cleanup.policy").contains("compact") {
        let what = "cleanup.policy = compact: of the events of one key only the last is kept, and those without a key are stored under their body's hash once they were refused";
        findings.add(Level::Error, about, what, demands.alter(&topic.name, "cleanup.policy=delete"));
    }
    judge_retention(topic, about, demands, findings);
    if text("message.timestamp.type") == "LogAppendTime" {
        findings.note(about, "message.timestamp.type = LogAppendTime: a record's timestamp says when it was stored, not when the bridge received it");
    }
}

fn judge_in_sync(topic: &Topic, about: &str, demands: &Demands, findings: &mut Findings) {
    let replication = i64::try_from(topic.replication).unwrap_or(i64::MAX);
    let Some(min) = topic.number("min.insync.replicas") else { return };
    let good = demands.alter(&topic.name, &format!("min.insync.replicas={}", if replication >= 3 { 2 } else { 1 }));
    if min > replication {
        let what =
            format!("min.insync.replicas = {min}, and it has {replication} replicas: no write is ever committed");
        findings.add(Level::Error, about, what, good);
    } else if min == replication && replication > 1 {
        let what = format!("min.insync.replicas = {min}, as many as it has replicas: one broker down stops all writes");
        findings.add(Level::Error, about, what, good);
    } else if min < 2 && replication > 2 {
        let what = format!(
            "min.insync.replicas = {min}: an event may be acked that a single broker holds, and is lost with it"
        );
        findings.add(Level::Error, about, what, good);
    }
}

fn judge_retention(topic: &Topic, about: &str, demands: &Demands, findings: &mut Findings) {
    let retention = topic.number("retention.ms").filter(|millis| *millis >= 0);
    if let Some(millis) = retention.filter(|millis| *millis < DAY_MS) {
        let what = format!("keeps its records for {}: less than a day to read them", age(Some(millis)));
        findings.add(Level::Warning, about, what, demands.alter(&topic.name, "retention.ms=604800000"));
    }
    if let Some(bytes) = topic.number("retention.bytes").filter(|bytes| *bytes >= 0) {
        findings.note(
            about,
            format!(
                "retention.bytes = {bytes} a partition: beyond it the oldest records go, whatever retention.ms says"
            ),
        );
    }
    if let Some(before) = topic.number("message.timestamp.before.max.ms")
        && retention.is_none_or(|retention| before < retention)
        && before < i64::MAX
    {
        findings.note(about, format!("message.timestamp.before.max.ms = {before}: `causeway replay` keeps the received time, and stores a dead letter that is older with the time of its replay instead"));
    }
}

/// The topic's shape in words: `6 partitions, 3 replicas, min.insync.replicas 2, kept 7 days`.
fn shape(topic: &Topic) -> String {
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut shape = format!("{}, {}", plural(topic.partitions, "partition"), plural(topic.replication, "replica"));
    if let Some(min) = topic.number("min.insync.replicas") {
        shape.push_str(&format!(", min.insync.replicas {min}, kept {}", age(topic.number("retention.ms"))));
    }
    shape
}

/// A retention in words: `7 days`, `90 s`, `for ever`.
pub fn age(millis: Option<i64>) -> String {
    match millis {
        None => "-".to_owned(),
        Some(..0) => "for ever".to_owned(),
        Some(millis) if millis >= DAY_MS && millis % DAY_MS == 0 => match millis / DAY_MS {
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        },
        Some(millis) if millis >= 3_600_000 => format!("{:.1} h", millis as f64 / 3_600_000.0),
        Some(millis) => format!("{:.0} s", millis as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn demands() -> Demands {
        Demands {
            message_bytes_max: 1_000_000,
            create_topics: false,
            embedded: false,
            tool_options: "--bootstrap-server b:1".to_owned(),
            apply: "causeway topics --apply".to_owned(),
        }
    }

    /// The worst level and the text for a topic that is sound except for `settings`.
    fn said(replication: usize, in_sync: usize, settings: &[(&str, &str)]) -> (Level, String) {
        let sound = [
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
            ("max.message.bytes", "1048588"),
            ("retention.ms", "604800000"),
            ("cleanup.policy", "delete"),
        ];
        let all: BTreeMap<String, String> =
            sound.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let topic = Topic {
            name: "t".to_owned(),
            partitions: 6,
            replication,
            in_sync,
            settings: Some(all),
            ..Topic::default()
        };
        let findings = judge("t", &Survey { found: vec![topic], ..Survey::default() }, &demands());
        (findings.worst(), findings.text())
    }

    #[test]
    fn what_breaks_the_promise_is_an_error() {
        for (replication, in_sync, setting, level, words) in [
            (3, 3, ("min.insync.replicas", "2"), Level::Ok, "min.insync.replicas 2, kept 7 days"),
            (3, 3, ("min.insync.replicas", "1"), Level::Error, "an event may be acked that a single broker holds"),
            (3, 3, ("min.insync.replicas", "3"), Level::Error, "one broker down stops all writes"),
            (2, 2, ("min.insync.replicas", "3"), Level::Error, "no write is ever committed"),
            (2, 2, ("min.insync.replicas", "1"), Level::Warning, "has 2 replicas"),
            (1, 1, ("min.insync.replicas", "1"), Level::Warning, "lost with its only broker"),
            (3, 1, ("min.insync.replicas", "2"), Level::Error, "nothing is committed to it"),
            (3, 2, ("min.insync.replicas", "2"), Level::Warning, "2 of 3 replicas in sync"),
            (
                3,
                3,
                ("unclean.leader.election.enable", "true"),
                Level::Error,
                "--add-config unclean.leader.election.enable=false",
            ),
            (3, 3, ("max.message.bytes", "999999"), Level::Error, "--add-config max.message.bytes=1000000"),
            (3, 3, ("cleanup.policy", "compact,delete"), Level::Error, "only the last is kept"),
            (3, 3, ("retention.ms", "3600000"), Level::Warning, "for 1.0 h"),
            (3, 3, ("retention.ms", "-1"), Level::Ok, "kept for ever"),
            (3, 3, ("retention.bytes", "5"), Level::Note, "retention.bytes = 5"),
            (3, 3, ("message.timestamp.type", "LogAppendTime"), Level::Note, "LogAppendTime"),
            (3, 3, ("message.timestamp.before.max.ms", "3600000"), Level::Note, "causeway replay"),
        ] {
            let (worst, text) = said(replication, in_sync, &[setting]);
            assert_eq!(worst, level, "{setting:?}: {text}");
            assert!(text.contains(words), "{setting:?}: {text}");
        }
    }

    /// Each fault that a running bridge publishes as a metric must appear in the words of `judge`, too.
    #[test]
    fn the_metrics_say_what_check_says() {
        let words = |fault: &str| match fault {
            "leader" => "no leader",
            "replication" => "has 1 replica|has 2 replicas",
            "in_sync" => "replicas in sync now",
            "min.insync.replicas" => "one broker down stops|no write is ever|a single broker holds",
            "unclean.leader.election.enable" => "a replica that lags may become leader",
            "cleanup.policy" => "only the last is kept",
            fault => panic!("{fault}"),
        };
        for replication in 1..=4 {
            for (in_sync, min, leaderless) in [(replication, 1, 0), (replication, 2, 0), (1, 3, 1), (replication, 3, 0)]
            {
                for (unclean, cleanup) in [("true", "delete"), ("false", "compact,delete")] {
                    let settings = [
                        ("min.insync.replicas", min.to_string()),
                        ("unclean.leader.election.enable", unclean.to_owned()),
                        ("cleanup.policy", cleanup.to_owned()),
                    ];
                    let settings = settings.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
                    let topic = Topic {
                        name: "t".to_owned(),
                        partitions: 6,
                        replication,
                        in_sync,
                        leaderless,
                        settings: Some(settings),
                        ..Topic::default()
                    };
                    let faults = topic.faults();
                    let text = judge("t", &Survey { found: vec![topic], ..Survey::default() }, &demands()).text();
                    for (fault, is) in faults {
                        // For two replicas that are both needed only the setting is named, not their number as well.
                        let said = words(fault).split('|').any(|words| text.contains(words));
                        assert_eq!(is, Some(said), "{fault} of {replication} replicas, min {min}: {text}");
                    }
                }
            }
        }
        assert!(Topic::default().faults().iter().filter(|(_, is)| is.is_none()).count() == 3, "unknown is not well");
    }

    #[test]
    fn a_missing_topic_is_an_error_unless_the_bridge_creates_it() {
        use rdkafka::error::RDKafkaErrorCode::{TopicAuthorizationFailed, UnknownTopicOrPartition};
        let survey = |code| Survey { missing: vec![("t".to_owned(), Missing::Code(code))], ..Survey::default() };
        let (unknown, hidden) = (survey(UnknownTopicOrPartition), survey(TopicAuthorizationFailed));
        let creates = Demands { create_topics: true, ..demands() };
        assert_eq!(judge("t", &unknown, &demands()).worst(), Level::Error);
        assert_eq!(judge("t", &unknown, &creates).worst(), Level::Note);
        let said = judge("t", &hidden, &creates).text();
        assert!(said.contains("cannot be seen (TopicAuthorizationFailed)"), "{said}");
    }
}
