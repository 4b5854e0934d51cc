//! [`Event`] -> [`Record`]: topic, key, headers, timestamp, value. Pure: no clock, no network.

pub mod attribute;
pub mod coding;
pub mod dead_letter;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use simd_json::{Node, StaticNode};
use xxhash_rust::xxh3::xxh3_128;

pub use self::dead_letter::Refused;
use crate::{
    event::{Event, Unreadable},
    feed::Feed,
    schema::{Mark, Marked, Schema},
    transcode::{Direct, Encoded, Text, Transcoder, read_rfc3339, write_json},
};

/// A record for Kafka: key, headers and value, one after the other in one buffer that is reused from event to event.
#[derive(Debug, Default, Clone)]
pub struct Record {
    bytes: Vec<u8>,
    /// Where the key ends; `None` for a null key.
    key: Option<usize>,
    /// Where the headers end and the value begins.
    headers: usize,
    /// When the bridge received the event, milliseconds since 1970.
    pub timestamp: i64,
}

/// Each header begins with two sizes in bytes: of its name and of its value.
const HEADER_SIZES: usize = 2 * size_of::<u32>();

impl Record {
    /// Starts a new record with this key and timestamp (milliseconds since 1970). Headers come next, then the value.
    pub fn begin(&mut self, key: Option<&[u8]>, timestamp: i64) {
        self.bytes.clear();
        self.bytes.extend_from_slice(key.unwrap_or_default());
        self.key = key.map(<[u8]>::len);
        self.headers = self.bytes.len();
        self.timestamp = timestamp;
    }

    /// Appends a header. Its sizes fit into 32 bits, as a record is smaller than `message.max.bytes`, at most 1 GB.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        self.bytes.extend_from_slice(&(name.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(&(value.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(value);
        self.headers = self.bytes.len();
    }

    /// The buffer that the value is appended to.
    pub fn value_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The key; `None` for a null key.
    pub fn key(&self) -> Option<&[u8]> {
        self.bytes.get(..self.key?)
    }

    /// The headers in the order of their appending: name and value.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = self.bytes.get(self.key.unwrap_or(0)..self.headers).unwrap_or_default();
        std::iter::from_fn(move || {
            let (sizes, after) = rest.split_first_chunk::<HEADER_SIZES>()?;
            let [name, value] = sizes.as_chunks().0 else { return None };
            let (name, after) = after.split_at_checked(u32::from_ne_bytes(*name) as usize)?;
            let (value, after) = after.split_at_checked(u32::from_ne_bytes(*value) as usize)?;
            rest = after;
            Some((str::from_utf8(name).unwrap_or_default(), value))
        })
    }

    /// The value, with its prefix.
    pub fn value(&self) -> &[u8] {
        self.bytes.get(self.headers..).unwrap_or_default()
    }

    /// The memory in bytes that the record takes until its commit, beside the posted body.
    pub fn size(&self) -> usize {
        self.bytes.len() + OVERHEAD_BYTES
    }
}

/// The facts of a request beside its body.
#[derive(Debug, Clone)]
pub struct Origin {
    /// When the bridge received the request, milliseconds since 1970.
    pub received_at: i64,
    /// The allowed name in the sender's certificate.
    pub sender: Arc<str>,
    /// The request's `content-type`.
    pub content_type: Option<Cow<'static, [u8]>>,
    /// The request's `content-encoding`.
    pub content_encoding: Option<Cow<'static, [u8]>>,
    /// The request's `traceparent` (W3C Trace Context).
    pub traceparent: Option<Cow<'static, [u8]>>,
    /// The request's `tracestate` (W3C Trace Context).
    pub tracestate: Option<Cow<'static, [u8]>>,
    /// How often a dead letter was sent again; 0 for a request of a sender.
    pub attempts: u32,
}

/// The largest key in bytes. No issue's or agent's id is longer, and body and key together must fit where the body
/// does.
const KEY_BYTES_MAX: usize = 1024;

/// One feed as the translation needs it: pointers split into tokens, prefixes made.
#[derive(Debug, Clone)]
pub struct Route {
    /// The feed's label in the configuration, in metrics and in logs.
    pub label: String,
    /// The feed's schema and its plan.
    pub schema: Schema,
    /// The feed's own topic, then the topics of its event types.
    pub topics: Vec<Target>,
    event_types: HashMap<String, usize>,
    key: Vec<Vec<String>>,
    time: Vec<String>,
    /// Whether the direct path suffices: [`Direct`] sees every field that may be the key or the time, and no field
    /// holds JSON text.
    direct: bool,
}

/// A topic, and the prefix of every value in it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The topic's name.
    pub topic: String,
    /// `00` and the schema's id in four bytes (Confluent wire format), or `C3 01` and the fingerprint (Avro
    /// single-object encoding).
    pub prefix: Vec<u8>,
}

/// The facts of an event that its record's key and headers carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The event's `api_version`.
    pub api_version: &'a str,
    /// The event's `name`.
    pub name: &'a str,
    /// The event's `event_id`.
    pub event_id: &'a str,
    /// The event's `event_type`.
    pub event_type: &'a str,
    /// `/meta_data/event_time`, if it is in RFC 3339's form.
    time: Option<&'a str>,
    /// The value at the first key pointer that leads to a non-empty string or a number of at most [`KEY_BYTES_MAX`]. An
    /// empty string is no key: the partitioner would send all such records to one partition.
    key: Option<Cow<'a, [u8]>>,
}

/// The facts of a record that was made, for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made<'a> {
    /// The event's own facts.
    pub facts: Facts<'a>,
    /// The [`body_hash`] of the raw body.
    pub body_hash: u128,
    /// The position of its target in the route's `topics`.
    pub target: usize,
    /// The number of members that went to `extras`.
    pub extras: usize,
}

impl Made<'_> {
    /// Whether no key pointer led to a key.
    pub fn has_null_key(&self) -> bool {
        self.facts.key.is_none()
    }
}

/// The prefix of the Confluent wire format for a schema's id.
pub fn confluent_prefix(id: u32) -> Vec<u8> {
    [&[0], id.to_be_bytes().as_slice()].concat()
}

/// The prefix of the Avro specification's single-object encoding.
pub fn single_object_prefix(fingerprint: [u8; 8]) -> Vec<u8> {
    [[0xC3, 0x01].as_slice(), &fingerprint].concat()
}

impl Route {
    /// Makes a route whose targets have the single-object prefix; the registry's ids replace it later.
    pub fn new(feed: &Feed, mut schema: Schema) -> Self {
        let prefix = single_object_prefix(schema.fingerprint);
        let topics = feed.topics();
        let event_types = feed
            .event_types
            .iter()
            .filter_map(|(event_type, topic)| {
                Some((event_type.clone(), topics.iter().position(|known| known == topic)?))
            })
            .collect();
        let target = |topic: &&str| Target { topic: (*topic).to_owned(), prefix: prefix.clone() };
        let key: Vec<_> = feed.key.iter().map(|pointer| tokens(pointer)).collect();
        let keys = key.iter().enumerate().map(|(position, tokens)| (tokens.clone(), Mark::key(position)));
        let time = tokens(EVENT_TIME);
        let all_marked = keys
            .chain([(time.clone(), Some(Mark::EVENT_TIME))])
            .all(|(tokens, mark)| mark.is_some_and(|mark| schema.plan.mark(&tokens, mark)));
        Self {
            label: feed.label.clone(),
            topics: topics.iter().map(target).collect(),
            event_types,
            direct: all_marked && !schema.plan.has_json_text(),
            key,
            time,
            schema,
        }
    }

    /// Makes the record of `event` in `record`.
    ///
    /// # Errors
    /// [`Event::checked`]'s error; `record` is of no use then.
    pub fn fill<'a>(
        &self,
        record: &mut Record,
        event: &Event<'a>,
        body: &[u8],
        origin: &Origin,
        transcoder: &mut Transcoder,
    ) -> Result<Made<'a>, Unreadable> {
        let facts = Facts {
            api_version: event.api_version,
            name: event.name,
            event_id: event.event_id,
            event_type: event.event_type,
            time: event.text(&self.time).filter(|text| read_rfc3339(text).is_some()),
            key: self.key(event),
        };
        let mut made = self.begin(record, facts, body, origin);
        made.extras = transcoder.encode(event, &self.schema.plan, record.value_mut())?;
        Ok(made)
    }

    /// Makes the record of the event in `text`, the decoded `body`, on the direct path. `None` says only that
    /// [`Direct`] does not handle this text; `record` is of no use then. `depth_max` as in
    /// [`Parser::new`](crate::event::Parser::new).
    pub fn fill_directly<'a>(
        &self,
        record: &mut Record,
        text: &'a [u8],
        body: &[u8],
        depth_max: usize,
        origin: &Origin,
        direct: &mut Direct,
    ) -> Option<Made<'a>> {
        if !self.direct {
            return None;
        }
        let Encoded { value, marked, extras } = direct.encode(text, &self.schema.plan, depth_max)?;
        let mut made = self.begin(record, self.marked(&marked)?, body, origin);
        made.extras = extras;
        record.value_mut().extend_from_slice(value);
        Some(made)
    }

    fn marked<'a>(&self, marked: &Marked<Text<'a>>) -> Option<Facts<'a>> {
        let string = |mark| marked.get(mark).and_then(Text::string);
        let key = |mark| marked.get(mark).and_then(Text::key).filter(|text| text.len() <= KEY_BYTES_MAX);
        Some(Facts {
            api_version: string(Mark::API_VERSION)?,
            name: string(Mark::NAME)?,
            event_id: string(Mark::EVENT_ID)?,
            event_type: string(Mark::EVENT_TYPE)?,
            time: string(Mark::EVENT_TIME).filter(|text| read_rfc3339(text).is_some()),
            key: (0..self.key.len()).filter_map(Mark::key).find_map(key).map(|text| Cow::Borrowed(text.as_bytes())),
        })
    }

    /// Writes the whole record but its value.
    fn begin<'a>(&self, record: &mut Record, facts: Facts<'a>, body: &[u8], origin: &Origin) -> Made<'a> {
        let body_hash = body_hash(body);
        let target = self.event_types.get(facts.event_type).copied().unwrap_or(0);
        record.begin(facts.key.as_deref(), origin.received_at);
        cloud_event(record, &facts, body_hash, origin);
        if let Some(target) = self.topics.get(target) {
            record.value_mut().extend_from_slice(&target.prefix);
        }
        Made { facts, body_hash, target, extras: 0 }
    }

    fn key<'a>(&self, event: &Event<'a>) -> Option<Cow<'a, [u8]>> {
        self.key.iter().filter_map(|tokens| event.find(tokens)).find_map(|at| match event.tape().get(at)? {
            Node::String(text) => {
                Some(Cow::Borrowed(text.as_bytes())).filter(|text| (1..=KEY_BYTES_MAX).contains(&text.len()))
            }
            Node::Static(StaticNode::I64(_) | StaticNode::U64(_) | StaticNode::F64(_)) => {
                let mut text = Vec::new();
                write_json(event.tape(), at, &mut text);
                Some(Cow::Owned(text))
            }
            Node::Static(_) | Node::Object { .. } | Node::Array { .. } => None,
        })
    }
}

/// Splits a JSON pointer into its tokens (RFC 6901).
fn tokens(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
}

/// Headers of CloudEvents' Kafka binding in binary content mode, and the hash that finds duplicates.
fn cloud_event(record: &mut Record, facts: &Facts<'_>, body_hash: u128, origin: &Origin) {
    record.header("ce_specversion", b"1.0");
    record.header("ce_id", attribute::string(facts.event_id).as_bytes());
    record.header("ce_source", attribute::uri_reference(facts.name).as_bytes());
    record.header("ce_type", attribute::string(facts.event_type).as_bytes());
    if let Some(time) = facts.time {
        record.header("ce_time", time.as_bytes());
    }
    record.header("content-type", b"application/avro");
    record.header("causeway_body", hex(body_hash).as_slice());
    trace_context(record, origin);
}

/// The pointer to the sender's own time of the event.
const EVENT_TIME: &str = "/meta_data/event_time";

fn trace_context(record: &mut Record, origin: &Origin) {
    for (name, value) in [("traceparent", &origin.traceparent), ("tracestate", &origin.tracestate)] {
        if let Some(value) = value {
            record.header(name, value);
        }
    }
}

/// The XXH3-128 of the raw body. Two records with the same hash, `ce_source` and `ce_id` are the same event.
pub fn body_hash(body: &[u8]) -> u128 {
    xxh3_128(body)
}

/// Prints a hash as 32 lower-case hex digits.
fn hex(hash: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    for (position, digit) in digits.iter_mut().enumerate() {
        let nibble = (hash >> (124 - 4 * position) & 0xF) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    digits
}

/// The memory in bytes that a record takes beside its own bytes: the producer's message and headers, a parcel, a place
/// in the dedupe window, and the allocators' losses. Measured: 60,000 records of 2 KB with their bodies took 3.6 KB
/// each.
pub const OVERHEAD_BYTES: usize = 1664;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_printed_in_32_digits() {
        assert_eq!(&hex(0x1f), b"0000000000000000000000000000001f");
        assert_eq!(hex(u128::MAX), [b'f'; 32]);
    }

    #[test]
    fn prefixes() {
        assert_eq!(confluent_prefix(258), [0, 0, 0, 1, 2]);
        assert_eq!(single_object_prefix([1, 2, 3, 4, 5, 6, 7, 8]), [0xC3, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
