//! `[feeds.*]`: the built-in feeds with the configuration's changes to them, and the feeds that it adds.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{fault::Wrong, settings::Settings};
use crate::feed::{self, Feed, SchemaSource};

/// Reads every feed: the built-in ones first, then the others by label. No feed may write to `dead_letter_topic`.
pub(super) fn read(settings: &mut Settings, dead_letter_topic: &str) -> Vec<Feed> {
    let mut feeds = feed::built_in();
    for feed in &mut feeds {
        change(settings, feed);
    }
    for label in labels(settings) {
        if feeds.iter().all(|feed| feed.label != label) {
            feeds.extend(add(settings, &label));
        }
    }
    refuse_shared(settings, &feeds, "name", |feed| feed.name.as_deref());
    refuse_shared(settings, &feeds, "path", |feed| feed.path.as_deref());
    refuse_shared_topics(settings, &feeds, dead_letter_topic);
    feeds
}

/// Checks the name of a topic by Kafka's own rule (`org.apache.kafka.common.internals.Topic`).
pub(super) fn topic(name: &str) -> Result<String, Wrong> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.len() <= 249 && name.bytes().all(legal) && !matches!(name, "" | "." | "..") {
        return Ok(name.to_owned());
    }
    Err(Wrong::new(format!("is {name:?}, no legal topic name"), "use 1 to 249 letters, digits, '.', '_' and '-'"))
}

/// The configuration's key for a member of the feed.
pub(super) fn key(label: &str, member: &str) -> String {
    format!("feeds.{label}.{member}")
}

fn labels(settings: &Settings) -> BTreeSet<String> {
    let below = settings.below("feeds");
    below.iter().filter_map(|(rest, _)| rest.split('.').next()).map(str::to_owned).collect()
}

/// Reads a feed that is not built in; `None` if its label is not allowed.
fn add(settings: &mut Settings, label: &str) -> Option<Feed> {
    let section = format!("feeds.{label}");
    let first = settings.below(&section).first().map_or(section.clone(), |(member, _)| key(label, member));
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if label.is_empty() || !label.bytes().all(legal) || label == feed::DEAD_LETTER {
        let what = format!("stands below feeds.{label}, which no feed can be called");
        let remedy = format!("use a-z, 0-9, '_' and '-', and not {}", feed::DEAD_LETTER);
        settings.fault(&first, Wrong::new(what, remedy));
        // The section is still read, so that the faults in it are noted as well.
        change(settings, &mut Feed { label: label.to_owned(), ..feed::other() });
        return None;
    }
    for member in ["name", "schema"] {
        if !settings.is_given(&key(label, member)) {
            let what = format!("belongs to a new feed, which has no {member}");
            let remedy = format!("set {}: only {} have one built in", key(label, member), built_in_labels());
            settings.fault(&first, Wrong::new(what, remedy));
        }
    }
    let mut feed = Feed {
        label: label.to_owned(),
        topic: format!("asapp.{label}"),
        schema: SchemaSource::File(PathBuf::new()),
        ..feed::other()
    };
    change(settings, &mut feed);
    Some(feed)
}

fn built_in_labels() -> String {
    feed::built_in().iter().map(|feed| feed.label.as_str()).collect::<Vec<_>>().join(", ")
}

/// Applies the configuration's values to `feed`.
fn change(settings: &mut Settings, feed: &mut Feed) {
    let label = feed.label.clone();
    let key = |member: &str| key(&label, member);
    if label != feed::OTHER {
        feed.name = settings.text(&key("name")).or(feed.name.take());
    } else if settings.is_given(&key("name")) {
        let wrong =
            Wrong::new("cannot be set", "this feed takes every name that no other feed has; add a feed of your own");
        settings.fault(&key("name"), wrong);
    }
    if let Some(topic) = settings.parsed(&key("topic"), topic) {
        feed.topic = topic;
    }
    if let Some(pointers) = settings.list(&key("key")) {
        for pointer in pointers.iter().filter(|text| !is_pointer(text)) {
            let what = format!("holds {pointer:?}, no JSON pointer to a member");
            settings.fault(
                &key("key"),
                Wrong::new(what, "write it as in /data/rep_id; '~' only as ~0, '/' in a name as ~1"),
            );
        }
        feed.key = pointers;
    }
    feed.path = settings.parsed(&key("path"), path);
    if let Some(file) = settings.path(&key("schema")) {
        feed.schema = SchemaSource::File(file);
    }
    feed.schema_id = settings.optional_integer(&key("schema_id"));
    if feed.schema_id.is_some() && !settings.is_given("registry.url") {
        let wrong = Wrong::new("is a schema's id in a registry, but no registry is configured", "set registry.url too");
        settings.fault(&key("schema_id"), wrong);
    }
    feed.event_types = event_types(settings, &key("event_types"));
}

fn event_types(settings: &mut Settings, section: &str) -> BTreeMap<String, String> {
    let mut types = BTreeMap::new();
    for (event_type, _) in settings.below(section) {
        if let Some(topic) = settings.parsed(&format!("{section}.{event_type}"), topic) {
            types.insert(event_type, topic);
        }
    }
    types
}

/// Whether `text` is a JSON pointer (RFC 6901) to a member. The empty pointer is refused: a whole document is no key.
fn is_pointer(text: &str) -> bool {
    let escapes_legal = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    text.starts_with('/') && escapes_legal
}

fn path(text: &str) -> Result<String, Wrong> {
    let what = if !text.starts_with('/') {
        "does not begin with /"
    } else if matches!(text, "/" | "/events") {
        "takes the events of all feeds already"
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#') {
        "holds more than a path"
    } else {
        return Ok(text.to_owned());
    };
    Err(Wrong::new(format!("is {text:?}, which {what}"), "write it as in /activity-processed"))
}

/// Notes a fault if two feeds have the same `member`: an event could then belong to either.
fn refuse_shared(settings: &mut Settings, feeds: &[Feed], member: &str, of: impl Fn(&Feed) -> Option<&str>) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for feed in feeds {
        let Some(value) = of(feed) else { continue };
        if let Some(first) = seen.insert(value, &feed.label) {
            let (one, two) = (key(first, member), key(&feed.label, member));
            let what = format!("{} and {}", settings.side(&one, value), settings.side(&two, value));
            settings.clash(&[&two, &one], what, format!("give each feed a {member} of its own"));
        }
    }
}

/// Notes a fault for a topic with two schemas, because it has one subject in the registry, and for a feed's topic that
/// also takes dead letters.
fn refuse_shared_topics(settings: &mut Settings, feeds: &[Feed], dead_letter_topic: &str) {
    let mut seen: BTreeMap<&str, &Feed> = BTreeMap::new();
    for feed in feeds {
        for topic in feed.topics() {
            let two = topic_key(feed, topic);
            if topic == dead_letter_topic {
                let one = "dead_letter.topic";
                let what = format!("{} and {}", settings.side(&two, topic), settings.side(one, topic));
                settings.clash(&[&two, one], what, "dead letters need a topic of their own".to_owned());
            }
            let Some(first) = seen.insert(topic, feed).filter(|first| first.schema != feed.schema) else { continue };
            let one = topic_key(first, topic);
            let what = format!("{} and {}, with two schemas", settings.side(&one, topic), settings.side(&two, topic));
            settings.clash(
                &[&two, &one],
                what,
                "a topic has one schema: use two topics, or the same schema file".to_owned(),
            );
        }
    }
}

/// The configuration's key that makes `feed` write to `topic`.
fn topic_key(feed: &Feed, topic: &str) -> String {
    let by_type = feed.event_types.iter().find(|(_, of_type)| of_type.as_str() == topic && feed.topic != topic);
    by_type.map_or_else(
        || key(&feed.label, "topic"),
        |(event_type, _)| key(&feed.label, &format!("event_types.{event_type}")),
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::{from_toml, load::tests::*},
        *,
    };

    fn with(feeds: &str) -> String {
        format!("{MINIMAL}{feeds}\n")
    }

    #[test]
    fn built_in_first_then_added_by_label() {
        let text = with(
            r#"
            [feeds.zeta]
            name = "z"
            schema = "z.avsc"
            path = "/z"
            [feeds.alpha]
            name = "a"
            schema = "a.avsc"
            topic = "t"
            key = ["/data/x~1y"]
            [feeds.activity]
            topic = "mine"
            event_types = { "agent.rated" = "ratings" }
            "#,
        );
        let feeds = from_toml(&text).unwrap().feeds;
        let labels: Vec<_> = feeds.iter().map(|feed| feed.label.as_str()).collect();
        assert_eq!(labels, ["activity", "journey", "queue", "other", "alpha", "zeta"]);
        assert_eq!(feeds[0].topics(), ["mine", "ratings"]);
        assert_eq!(feeds[0].event_types["agent.rated"], "ratings");
        assert_eq!(feeds[0].key, feed::built_in()[0].key);
        assert_eq!(feeds[1..4], feed::built_in()[1..4]);
        assert_eq!((feeds[4].topic.as_str(), feeds[4].key.as_slice()), ("t", &["/data/x~1y".to_owned()][..]));
        assert_eq!(feeds[5].topic, "asapp.zeta");
        assert_eq!(feeds[5].key, feed::other().key);
        assert_eq!(feeds[5].schema, SchemaSource::File("z.avsc".into()));
        assert_eq!(feeds[5].path.as_deref(), Some("/z"));
    }

    #[test]
    fn faults() {
        let new = "schema = 's'\nname = 'n'\n";
        for (feeds, expected) in [
            ("[feeds.new]", vec!["feeds.new belongs to a new feed, which has no name", "which has no schema"]),
            ("[feeds.New]\ntopic = 't'", vec!["stands below feeds.New, which no feed can be called"]),
            (
                "[feeds.New]\ntopic = 'a b'\nkey = ['data']\npath = 'x'",
                vec!["no feed can be called", "no legal topic name", "holds \"data\"", "does not begin with /"],
            ),
            ("[feeds.dead-letter]\ntopic = 't'", vec!["which no feed can be called"]),
            ("[feeds.other]\nname = 'n'", vec!["feeds.other.name cannot be set"]),
            (
                "[feeds.queue]\nname = 'com.asapp.event.activity'",
                vec!["feeds.activity.name = com.asapp.event.activity (the default) and feeds.queue.name"],
            ),
            (
                "[feeds.queue]\npath = '/x'\n[feeds.journey]\npath = '/x'",
                vec!["feeds.journey.path = /x (a.toml:7) and feeds.queue.path = /x (a.toml:5)"],
            ),
            ("[feeds.queue]\npath = 'x'", vec!["does not begin with /"]),
            ("[feeds.queue]\npath = '/events'", vec!["takes the events of all feeds already"]),
            ("[feeds.queue]\npath = '/a?b'", vec!["holds more than a path"]),
            ("[feeds.queue]\ntopic = 'a b'", vec!["no legal topic name"]),
            ("[feeds.queue]\ntopic = '..'", vec!["no legal topic name"]),
            ("[feeds.queue.event_types]\nx = 'a/b'", vec!["feeds.queue.event_types.x is \"a/b\", no legal topic name"]),
            (
                "[feeds.queue]\nkey = ['', 'data', '/a~2', '/ok']",
                vec!["holds \"\"", "holds \"data\"", "holds \"/a~2\""],
            ),
            ("[feeds.queue]\nschema_id = 0", vec!["feeds.queue.schema_id is 0, less than 1"]),
            ("[feeds.queue]\nschema_id = 7", vec!["set registry.url"]),
            (
                "[feeds.queue]\nschema = 'q'\ntopic = 'asapp.journey'",
                vec!["feeds.journey.topic = asapp.journey (the default) and feeds.queue.topic"],
            ),
            (
                "[feeds.queue]\nevent_types.x = 'asapp.other'\nschema = 'q'",
                vec!["feeds.queue.event_types.x = asapp.other (a.toml:5)"],
            ),
            ("[feeds.queue]\ntopic = 'asapp.dead-letter'", vec!["dead letters need a topic of their own"]),
            (
                "[feeds.queue]\ntopics = 't'",
                vec!["feeds.queue.topics is not a key\n    did you mean feeds.queue.topic?"],
            ),
            ("feeds = 5", vec!["feeds is a section"]),
        ] {
            // `feeds = 5` must come first, or it would belong to the section above it.
            let text = if feeds.starts_with('[') { with(feeds) } else { format!("{feeds}\n{MINIMAL}") };
            assert_faults(&text, &expected);
        }
        assert!(
            from_toml(&with(&format!("[feeds.a]\n{new}[feeds.b]\nschema = 's'\nname = 'm'\ntopic = 'asapp.a'")))
                .is_ok()
        );
    }
}
