//! `replay` goes on where it ended, whatever became of what Kafka keeps of a consumer group.

use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use serde_json::{Value as Json, json};

use crate::{
    commands::{code, put, run, stderr, stdout},
    support::{self, bridge::Setup},
};

/// One dead letter for each id, each an event that can be read now.
fn put_letters(setup: &Setup, ids: &[&str]) {
    for id in ids {
        let event = format!(
            r#"{{"api_version":"v1","name":"com.asapp.event.journey","event_id":"{id}","event_type":"T","meta_data":{{"issue_id":"1"}}}}"#
        );
        put(support::kafka(), &setup.topic("dead-letter"), &event, &[]);
    }
}

fn setup() -> Setup {
    let setup = Setup::new(support::kafka(), None).set("kafka.topics.partitions", "1");
    assert_eq!(code(&run(&setup, &["topics", "--apply"])), 0);
    setup
}

/// How many a run put through, and its whole report.
fn replay(setup: &Setup, more: &[&str]) -> (Json, Json) {
    let output = run(setup, &[&["replay", "--json"], more].concat());
    assert_eq!(code(&output), 0, "{output:?}");
    let report: Json = serde_json::from_str(&stdout(&output)).unwrap();
    (report["replayed"].clone(), report)
}

fn stored(setup: &Setup) -> Vec<String> {
    let read = support::kafka().read(&setup.topic("journey"));
    read.iter().map(|record| record.header("ce_id").unwrap().to_owned()).collect()
}

/// As Kafka does 7 days after the last commit, and as somebody does who deletes the group.
fn forget_offsets(setup: &Setup) {
    let topic = setup.topic("dead-letter");
    let delete = ["--delete-offsets", "--group", "causeway-replay", "--topic", &topic];
    support::kafka().tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &delete);
}

fn commit(setup: &Setup, offset: i64, metadata: &str) {
    let mut client = support::kafka().client();
    let consumer: BaseConsumer = client.set("group.id", "causeway-replay").create().unwrap();
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(&setup.topic("dead-letter"), 0);
    element.set_offset(Offset::Offset(offset)).unwrap();
    element.set_metadata(metadata);
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

#[test]
fn what_kafka_has_forgotten_of_the_group_is_not_replayed_again() {
    let setup = setup();
    put_letters(&setup, &["a", "b"]);
    assert_eq!(replay(&setup, &[]).0, 2);
    forget_offsets(&setup);
    assert_eq!(replay(&setup, &["--dry-run"]).0, 0);
    assert_eq!(replay(&setup, &[]).0, 0, "a mark in the topic says that they are done");
    put_letters(&setup, &["c"]);
    assert_eq!(replay(&setup, &[]).0, 1);
    assert_eq!(stored(&setup), ["a", "b", "c"]);
    let shown = run(&setup, &["tail", "--dead-letters", "--no-follow"]);
    assert_eq!(stdout(&shown).lines().count(), 3, "a mark is no dead letter: {shown:?}");
    // The offset that somebody sets with Kafka's own tools is where it goes on.
    commit(&setup, 1, "");
    assert_eq!(replay(&setup, &[]).0, 2);
}

#[test]
fn an_offset_of_an_earlier_topic_of_this_name_skips_nothing() {
    let setup = setup();
    put_letters(&setup, &["a", "b", "c"]);
    for (offset, metadata) in [(2, "2"), (40, "40"), (40, "")] {
        commit(&setup, offset, metadata);
        assert_eq!(replay(&setup, &["--dry-run"]).0, 3, "{offset} {metadata:?}");
    }
    assert_eq!(replay(&setup, &[]).0, 3);
    support::kafka().delete_topic(&setup.topic("dead-letter"));
    assert_eq!(code(&run(&setup, &["topics", "--apply"])), 0);
    put_letters(&setup, &["d", "e", "f", "g"]);
    assert_eq!(replay(&setup, &[]).0, 4);
}

#[test]
fn what_was_deleted_before_a_run_came_to_it_is_told() {
    let setup = setup();
    put_letters(&setup, &["a"]);
    assert_eq!(replay(&setup, &[]).1["missed"], json!(null));
    put_letters(&setup, &["b", "c", "d"]);
    // The first dead letter, its mark, and two that no run has seen.
    support::kafka().delete_records(&setup.topic("dead-letter"), 4);
    let (replayed, report) = replay(&setup, &["--dry-run"]);
    let missed = report["missed"].as_str().unwrap_or_default();
    assert!(replayed == 1 && missed.starts_with("up to 2 dead letters were deleted"), "{report}");
    let told = run(&setup, &["replay"]);
    assert!(stderr(&told).contains(missed), "{told:?}");
    assert_eq!(replay(&setup, &[]).1["missed"], json!(null));
    assert_eq!(stored(&setup), ["a", "d"]);
}

/// As `check` says of `message.timestamp.before.max.ms`.
#[test]
fn a_dead_letter_that_is_older_than_its_topic_allows_gets_the_time_of_its_replay() {
    let setup = setup();
    support::kafka().alter_topic_config(&setup.topic("journey"), &[("message.timestamp.before.max.ms", "3600000")]);
    let checked = stdout(&run(&setup, &["check"]));
    assert!(checked.contains("stores a dead letter that is older with the time of its replay"), "{checked}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let event = r#"{"api_version":"v1","name":"com.asapp.event.journey","event_id":"old","event_type":"T"}"#;
    let received_at = (now - 7_200_000).to_string();
    put(support::kafka(), &setup.topic("dead-letter"), event, &[("causeway_received_at", &received_at)]);
    assert_eq!(replay(&setup, &[]).0, 1);
    let stored = support::kafka().read(&setup.topic("journey"));
    assert!(stored.len() == 1 && stored[0].timestamp >= now, "{stored:?}");
}
