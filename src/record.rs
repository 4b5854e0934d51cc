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

/// What Kafka gets: key, headers and value one after the other in a buffer that is used again from event to event.
#[derive(Debug, Default, Clone)]
pub struct Record {
    bytes: Vec<u8>,
    /// Where the key ends; none for a null key.
    key: Option<usize>,
    /// Where the headers end, and the value begins.
    headers: usize,
    /// When the bridge received the event, milliseconds since 1970.
    pub timestamp: i64,
}

/// Before each header's name and value: how long they are.
const HEADER_SIZES: usize = 2 * size_of::<u32>();

impl Record {
    /// An empty one with this key. Headers come next, then the value.
    pub fn begin(&mut self, key: Option<&[u8]>, timestamp: i64) {
        self.bytes.clear();
        self.bytes.extend_from_slice(key.unwrap_or_default());
        self.key = key.map(<[u8]>::len);
        self.headers = self.bytes.len();
        self.timestamp = timestamp;
    }

    /// A record is smaller than `message.max.bytes`, which is no more than 1 GB: its parts' sizes fit.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        self.bytes.extend_from_slice(&(name.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(&(value.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(value);
        self.headers = self.bytes.len();
    }

    /// Where the value is appended.
    pub fn value_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub fn key(&self) -> Option<&[u8]> {
        self.bytes.get(..self.key?)
    }

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

    pub fn value(&self) -> &[u8] {
        self.bytes.get(self.headers..).unwrap_or_default()
    }

    /// The bytes of memory that the record takes until it is committed, beside its body.
    pub fn size(&self) -> usize {
        self.bytes.len() + OVERHEAD_BYTES
    }
}

/// What is known of a request beside its body.
#[derive(Debug, Clone)]
pub struct Origin {
    /// When the bridge received it, milliseconds since 1970.
    pub received_at: i64,
    /// The name of the sender's certificate that was allowed.
    pub sender: Arc<str>,
    pub content_type: Option<Cow<'static, [u8]>>,
    pub content_encoding: Option<Cow<'static, [u8]>>,
    /// W3C Trace Context.
    pub traceparent: Option<Cow<'static, [u8]>>,
    pub tracestate: Option<Cow<'static, [u8]>>,
    /// How often a dead letter was put through again; 0 for what a sender posts.
    pub attempts: u32,
}

/// What is longer is no issue's and no agent's id: the body and its key together must fit where the body alone does.
const KEY_BYTES_MAX: usize = 1024;

/// One feed as the translation needs it: pointers split, wire headers made.
#[derive(Debug, Clone)]
pub struct Route {
    pub label: String,
    pub schema: Schema,
    /// The feed's own topic, then those of its event types.
    pub topics: Vec<Target>,
    event_types: HashMap<String, usize>,
    key: Vec<Vec<String>>,
    time: Vec<String>,
    /// Whether [`Direct`] sees whatever may be the key or the time, and may know a document as a whole.
    direct: bool,
}

/// A topic and what stands before every value in it.
#[derive(Debug, Clone)]
pub struct Target {
    pub topic: String,
    /// `00` and the schema's id in four bytes (Confluent wire format), or `C3 01` and the fingerprint (Avro single-object encoding).
    pub prefix: Vec<u8>,
}

/// What a record says of its event beside the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    pub api_version: &'a str,
    pub name: &'a str,
    pub event_id: &'a str,
    pub event_type: &'a str,
    /// `/meta_data/event_time`, when RFC 3339 can read it.
    time: Option<&'a str>,
    /// Of the first of the feed's pointers that leads to a non-empty string or a number, of at most [`KEY_BYTES_MAX`]; never an
    /// empty key, as the partitioner would send all of those to one partition.
    key: Option<Cow<'a, [u8]>>,
}

/// What a record was made of, for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made<'a> {
    pub facts: Facts<'a>,
    /// [`body_hash`].
    pub body_hash: u128,
    /// Which of the route's targets takes it.
    pub target: usize,
    /// How many members went to `extras`.
    pub extras: usize,
}

impl Made<'_> {
    pub fn has_null_key(&self) -> bool {
        self.facts.key.is_none()
    }
}

/// The Confluent wire format's header of a schema id.
pub fn confluent_prefix(id: u32) -> Vec<u8> {
    [&[0], id.to_be_bytes().as_slice()].concat()
}

/// The header of the Avro specification's single-object encoding.
pub fn single_object_prefix(fingerprint: [u8; 8]) -> Vec<u8> {
    [[0xC3, 0x01].as_slice(), &fingerprint].concat()
}

impl Route {
    /// A route whose targets have no prefix yet but the single-object one; the registry's ids replace it.
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

    /// Makes `event`'s record for this route in `record`.
    ///
    /// # Errors
    /// What [`Event::checked`] says; `record` is of no use then.
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

    /// Makes the record of the event that stands in `text`, which is the decoded `body`, without a tape. `None` says nothing about the text, only that
    /// it is not for [`Direct`]; `record` is of no use then. `depth_max` is [`Parser::new`](crate::event::Parser::new)'s.
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

    /// All of a record but its value.
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

/// RFC 6901: the pointer's tokens.
fn tokens(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
}

/// CloudEvents' Kafka binding, binary content mode, and what finds duplicates.
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

/// When the event was, as its sender says.
const EVENT_TIME: &str = "/meta_data/event_time";

fn trace_context(record: &mut Record, origin: &Origin) {
    for (name, value) in [("traceparent", &origin.traceparent), ("tracestate", &origin.tracestate)] {
        if let Some(value) = value {
            record.header(name, value);
        }
    }
}

/// The hash that, with `ce_source` and `ce_id`, says that two records are the same event: XXH3-128 of the raw body.
pub fn body_hash(body: &[u8]) -> u128 {
    xxh3_128(body)
}

/// 32 lower-case hex digits.
fn hex(hash: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    for (position, digit) in digits.iter_mut().enumerate() {
        let nibble = (hash >> (124 - 4 * position) & 0xF) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    digits
}

/// What a record takes beside its bytes: the producer's message and headers, a parcel, a place in the window, and what the
/// allocators lose. Measured: 60,000 records of 2 KB with their bodies took 3.6 KB each.
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
