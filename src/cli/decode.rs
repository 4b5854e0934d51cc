//! Records -> JSON, by the schema that each was written with; and one line for each.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use console::style;
use serde_json::{Value as Json, json};

use super::{Failure, schemas};
use crate::{
    config::Config,
    kafka::reader::Stored,
    record::{dead_letter, single_object_prefix},
    registry::{Registry, RegistryError},
    restore::restore_with_extras,
    schema::Schema,
    serve::routes,
    transcode::print_millis,
};

/// Decodes the records in a configuration's topics.
pub struct Decoder {
    dead_letters: String,
    labels: HashMap<String, String>,
    registry: Option<Registry>,
    /// Schemas by the prefix of the value, or why a prefix will never have one.
    schemas: HashMap<Vec<u8>, Result<Arc<Schema>, String>>,
    /// Prefixes with an id that the registry did not know, and when it was asked. A schema may be registered later, or
    /// the instance that answered may lag.
    unknown: HashMap<Vec<u8>, (Instant, String)>,
    /// The last time that the registry did not answer, and its error.
    away: Option<(Instant, String)>,
}

/// The registry is asked again only this long after a missing answer or an unknown id: else each record would wait.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The most unknown ids remembered: a topic that is not ours may have any number of them.
const UNKNOWN_MAX: usize = 1_000;

/// A record, decoded.
pub struct Decoded {
    /// The feed's label; the topic if it belongs to no feed.
    pub feed: String,
    /// The posted document, or why it cannot be shown.
    pub event: Result<Json, String>,
    /// The JSON pointers of the members that the schema has no field for.
    pub extras: Vec<String>,
    /// Whether the record is a dead letter. Its `event` is then the body as a string.
    pub dead_letter: bool,
}

impl Decoder {
    /// Takes the configuration's schemas, and a client of its registry if it has one.
    ///
    /// # Errors
    /// A schema or the registry's CA file cannot be used.
    pub fn new(config: &Config) -> Result<Self, Failure> {
        let routes = routes(config).map_err(|faults| Failure::findings(faults.join("\n")))?;
        let mut labels = HashMap::new();
        let mut known = HashMap::new();
        for route in routes {
            labels.extend(route.topics.iter().map(|target| (target.topic.clone(), route.label.clone())));
            known.insert(single_object_prefix(route.schema.fingerprint), Ok(Arc::new(route.schema)));
        }
        let registry = schemas::open(config)?;
        let dead_letters = config.dead_letter.topic.clone();
        Ok(Self { dead_letters, labels, registry, schemas: known, unknown: HashMap::new(), away: None })
    }

    /// Decodes one record. The registry may be asked for its schema.
    pub fn decode(&mut self, record: &Stored) -> Decoded {
        if record.topic == self.dead_letters {
            let feed = record.text(dead_letter::FEED).unwrap_or("dead-letter").to_owned();
            let body = String::from_utf8_lossy(&record.value).into_owned();
            return Decoded { feed, event: Ok(Json::String(body)), extras: Vec::new(), dead_letter: true };
        }
        let feed = self.labels.get(&record.topic).unwrap_or(&record.topic).clone();
        let (event, extras) = match self.event(&record.value) {
            Ok((event, extras)) => (Ok(event), extras),
            Err(why) => (Err(why), Vec::new()),
        };
        Decoded { feed, event, extras, dead_letter: false }
    }

    fn event(&mut self, value: &[u8]) -> Result<(Json, Vec<String>), String> {
        let length = match value {
            [0, ..] => 5,
            [0xC3, 0x01, ..] => 10,
            _ => return Err("the value begins with neither a schema's id nor its fingerprint".to_owned()),
        };
        let (prefix, avro) = value.split_at_checked(length).ok_or("the value is too short")?;
        let schema = self.schema(prefix)?;
        restore_with_extras(avro, &schema).map_err(|error| error.to_string())
    }

    fn schema(&mut self, prefix: &[u8]) -> Result<Arc<Schema>, String> {
        if let Some(known) = self.schemas.get(prefix) {
            return known.clone();
        }
        let lately = self.away.iter().chain(self.unknown.get(prefix)).find(|(since, _)| since.elapsed() < ASK_AGAIN);
        if let Some((_, why)) = lately {
            return Err(why.clone());
        }
        match self.fetch(prefix) {
            Ok(found) => {
                self.schemas.insert(prefix.to_vec(), found.clone());
                found
            }
            Err(unknown @ RegistryError::Refused { status: 404, .. }) => {
                let why = unknown.to_string();
                if self.unknown.len() >= UNKNOWN_MAX {
                    self.unknown.clear();
                }
                self.unknown.insert(prefix.to_vec(), (Instant::now(), why.clone()));
                Err(why)
            }
            Err(away) => {
                let why = away.to_string();
                self.away = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    /// The schema, or why there will never be one.
    ///
    /// # Errors
    /// The registry is away, or does not know the id now.
    fn fetch(&self, prefix: &[u8]) -> Result<Result<Arc<Schema>, String>, RegistryError> {
        let &[0, a, b, c, d] = prefix else { return Ok(Err("no schema here has its fingerprint".to_owned())) };
        let id = u32::from_be_bytes([a, b, c, d]);
        let Some(registry) = &self.registry else {
            return Ok(Err(format!("schema id {id} needs a [registry] in the configuration")));
        };
        match registry.schema(id) {
            Ok(text) => {
                let parsed = Schema::parse(&text).map(Arc::new);
                Ok(parsed.map_err(|error| format!("schema id {id}: {error}")))
            }
            Err(error) => Err(error),
        }
    }
}

/// One JSON line: the record's place, its key and headers, and the event.
pub fn json_line(record: &Stored, decoded: &Decoded) -> String {
    let headers: serde_json::Map<String, Json> =
        record.headers.iter().map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into())).collect();
    let (member, value) = match (&decoded.event, decoded.dead_letter) {
        (Ok(body), true) => ("body", body.clone()),
        (Ok(event), false) => ("event", event.clone()),
        (Err(why), _) => ("undecoded", json!(why)),
    };
    let mut line = json!({
        "feed": decoded.feed,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp.and_then(print_millis),
        "key": record.key.as_deref().map(String::from_utf8_lossy),
        "headers": headers,
        (member): value,
    });
    if let Some(members) = line.as_object_mut().filter(|members| members.contains_key("event")) {
        members.insert("extras".to_owned(), json!(decoded.extras));
    }
    line.to_string()
}

/// One line for a person, in colour on a terminal.
pub fn text_line(record: &Stored, decoded: &Decoded) -> String {
    let time = record.timestamp.and_then(print_millis).unwrap_or_default();
    let time = time.get(11..23).unwrap_or_default().to_owned();
    let place = format!("{}/{}@{}", record.topic, record.partition, record.offset);
    let key = record.key.as_deref().map_or_else(|| "-".into(), String::from_utf8_lossy).into_owned();
    if decoded.dead_letter {
        let reason = record.text(dead_letter::REASON).unwrap_or_default();
        return format!(
            "{} {} {} {}",
            style(time).dim(),
            style("dead letter").red().bold(),
            style(place).dim(),
            printable(reason)
        );
    }
    let header = |name: &str| printable(record.text(name).unwrap_or_default());
    format!(
        "{} {:<8} {} {} key={} {}",
        style(time).dim(),
        style(&decoded.feed).cyan(),
        style(header("ce_type")).bold(),
        style(place).dim(),
        printable(&key),
        header("ce_id")
    )
}

/// A sender's text without control characters, which must not reach a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
