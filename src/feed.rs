//! The feeds: an event's `name` -> topic, schema, and the pointers to its key.

use std::{collections::BTreeMap, path::PathBuf};

/// One kind of event, and where it goes.
///
/// Three feeds are built in, and [`other`] for events of any other `name`. The configuration overrides their keys and
/// adds feeds of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// The name in the configuration, in metric labels and in logs: `[a-z0-9_-]+`.
    pub label: String,
    /// The `name` of the events that belong here; `None` takes every name that no other feed has.
    pub name: Option<String>,
    /// The topic that takes the feed's events.
    pub topic: String,
    /// Chosen event types that go to a topic of their own: `event_type` -> topic.
    pub event_types: BTreeMap<String, String>,
    /// RFC 6901 pointers to the record's key; the first that leads to a string or number wins.
    pub key: Vec<String>,
    /// A request path bound to this feed, whatever the `name` in its events.
    pub path: Option<String>,
    /// The Avro schema of the feed's records.
    pub schema: SchemaSource,
    /// The registry's id of that schema, if the configuration pins it: then a cold start survives the registry's
    /// outage.
    pub schema_id: Option<u32>,
}

/// Where a feed's schema comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaSource {
    /// A schema in the binary: its text.
    BuiltIn(&'static str),
    /// An `.avsc` file named in the configuration.
    File(PathBuf),
}

/// The label of the feed that takes every event that no other feed takes.
pub const OTHER: &str = "other";

/// The label under which the dead-letter topic appears beside the feeds.
pub const DEAD_LETTER: &str = "dead-letter";

/// The feeds that need no configuration.
pub fn built_in() -> Vec<Feed> {
    vec![
        asapp("activity", include_str!("../schemas/activity.avsc"), &["/data/rep_id", "/meta_data/issue_id"]),
        asapp("journey", include_str!("../schemas/journey.avsc"), &["/meta_data/issue_id"]),
        asapp("queue", include_str!("../schemas/queue.avsc"), &["/data/queue_id", "/meta_data/issue_id"]),
        other(),
    ]
}

/// The feed of every event that no other feed takes: a typed envelope, with `data` and `details` as JSON text.
pub fn other() -> Feed {
    Feed { name: None, ..asapp(OTHER, include_str!("../schemas/other.avsc"), &["/meta_data/issue_id", "/data/rep_id"]) }
}

fn asapp(label: &str, schema: &'static str, key: &[&str]) -> Feed {
    Feed {
        label: label.to_owned(),
        name: Some(format!("com.asapp.event.{label}")),
        topic: format!("asapp.{label}"),
        event_types: BTreeMap::new(),
        key: key.iter().map(|pointer| (*pointer).to_owned()).collect(),
        path: None,
        schema: SchemaSource::BuiltIn(schema),
        schema_id: None,
    }
}

impl Feed {
    /// Every topic that the feed writes to: its own first, then those of its event types, each once.
    pub fn topics(&self) -> Vec<&str> {
        let mut topics = vec![self.topic.as_str()];
        for topic in self.event_types.values() {
            if !topics.contains(&topic.as_str()) {
                topics.push(topic);
            }
        }
        topics
    }
}
