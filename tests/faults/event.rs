//! The events that the bench sends: each body is one of a kind, so that a record tells which event it holds.

use bytes::Bytes;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feed {
    Activity,
    Journey,
    Queue,
    Other,
    /// A body that no reader can read.
    DeadLetter,
}

impl Feed {
    pub const ALL: [Self; 5] = [Self::Journey, Self::Activity, Self::Queue, Self::Other, Self::DeadLetter];

    /// As it stands in the bridge's configuration and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Activity => "activity",
            Self::Journey => "journey",
            Self::Queue => "queue",
            Self::Other => "other",
            Self::DeadLetter => "dead-letter",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Event {
    pub number: usize,
    pub feed: Feed,
    pub key: Option<String>,
    pub body: Bytes,
    /// What the record's header `causeway_body` must say.
    pub hash: String,
}

impl Event {
    /// `run` makes it another event than the same number's of another load.
    pub fn new(run: u32, number: usize, feed: Feed, keys: usize, padding: usize) -> Self {
        let key = format!("key-{}", number % keys);
        let mut event = json!({
            "api_version": "v1.3.0",
            "name": format!("com.asapp.event.{}", if feed == Feed::Other { "telemetry" } else { feed.label() }),
            "event_id": format!("{run}-{number}"),
            "event_type": "BENCH",
            "filling": noise(number, padding),
        });
        match feed {
            Feed::Activity => event["data"] = json!({ "rep_id": key }),
            Feed::Queue => event["data"] = json!({ "queue_id": key }),
            Feed::Journey | Feed::Other | Feed::DeadLetter => event["meta_data"] = json!({ "issue_id": key }),
        }
        let mut body = event.to_string();
        if feed == Feed::DeadLetter {
            body.pop();
        }
        Self::of(number, feed, (feed != Feed::DeadLetter).then_some(key), body)
    }

    pub fn of(number: usize, feed: Feed, key: Option<String>, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let hash = format!("{:032x}", xxh3_128(&body));
        Self { number, feed, key, body, hash }
    }
}

/// Text that no compression makes much smaller.
fn noise(seed: usize, bytes: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (seed as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state >> 33) as u8 % 64)
    };
    std::iter::repeat_with(next).filter(char::is_ascii_alphanumeric).take(bytes).collect()
}

/// The partition that a Java producer chooses for a key: murmur2 with Kafka's seed
/// (`org.apache.kafka.common.utils.Utils.murmur2`), its sign bit cut off.
pub fn partition(key: &[u8], partitions: usize) -> i32 {
    i32::try_from((murmur2(key) & 0x7fff_ffff) as usize % partitions).unwrap()
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let chunks = data.chunks_exact(4);
    let tail = chunks.remainder();
    for chunk in chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        hash ^= tail.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The values of Kafka's own `UtilsTest.testMurmur2`.
pub fn murmur2_is_kafkas() {
    for (text, hash) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    ] {
        assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
    }
}
