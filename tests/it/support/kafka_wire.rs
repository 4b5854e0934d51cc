//! As much of Kafka's protocol as a proxy needs: where a produce request is, where its response has the error code, and which
//! brokers the response to a metadata request names.
//!
//! Bytes of another protocol pass through unchanged: what they would mean here is never asked for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI32, AtomicU32, Ordering},
    },
};

const PRODUCE: u16 = 0;
const METADATA: u16 = 3;

/// From this version on the protocol has compact arrays and strings, and tags (KIP-482).
const FLEXIBLE: u16 = 9;

/// How many responses are to say which error.
#[derive(Default)]
pub struct Shared {
    left: AtomicU32,
    error: AtomicI32,
}

impl Shared {
    pub fn set(&self, count: u32, error: i16) {
        self.error.store(error.into(), Ordering::Relaxed);
        self.left.store(count, Ordering::Relaxed);
    }

    pub fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }
}

/// How much of a chunk passes before the connection ends.
pub enum Part {
    Whole,
    Until(usize),
}

/// Correlation id -> key and version, of the requests without a response yet that are looked at.
type Expected = Arc<Mutex<HashMap<[u8; 4], (u16, u16)>>>;

/// Where in a length-prefixed frame a stream is.
#[derive(Default)]
struct Frame {
    /// Without the four bytes of the length itself.
    length: usize,
    /// The frame's first bytes, those of the length included.
    head: Vec<u8>,
    position: usize,
}

impl Frame {
    /// Takes the next byte and tells at which position of its frame it stands.
    fn step(&mut self, byte: u8, head_max: usize) -> usize {
        if self.position >= 4 && self.position >= 4 + self.length {
            *self = Self::default();
        }
        let at = self.position;
        self.position += 1;
        if at < head_max {
            self.head.push(byte);
        }
        if at == 3 {
            self.length = u32::from_be_bytes([self.head[0], self.head[1], self.head[2], self.head[3]]) as usize;
        }
        at
    }

    fn number(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.head[at], self.head[at + 1]])
    }
}

/// From the client: length, key, version, correlation id.
pub struct Requests {
    frame: Frame,
    expected: Expected,
}

impl Requests {
    pub fn new(expected: Expected) -> Self {
        Self { frame: Frame::default(), expected }
    }

    /// Looks at the next bytes; a produce request that begins in them is cut in its middle when `to_break` says so.
    pub fn see(&mut self, bytes: &[u8], to_break: &AtomicU32) -> Part {
        for (index, byte) in bytes.iter().enumerate() {
            let at = self.frame.step(*byte, 12);
            if at != 11 || ![PRODUCE, METADATA].contains(&self.frame.number(4)) {
                continue;
            }
            let correlation = self.frame.head[8..12].try_into().unwrap();
            let request = (self.frame.number(4), self.frame.number(6));
            self.expected.lock().unwrap().insert(correlation, request);
            if request.0 == METADATA {
                continue;
            }
            let breaks =
                to_break.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            if breaks {
                return Part::Until((index + self.frame.length / 2).min(bytes.len()));
            }
        }
        Part::Whole
    }
}

/// From the broker: length, correlation id, one topic with one partition, as librdkafka asks for one at a time.
pub struct Responses {
    frame: Frame,
    expected: Expected,
    wrong: Arc<Shared>,
    /// Where this response has its error code, once that is known, and what to write there.
    patch: Option<(usize, [u8; 2])>,
}

/// A topic's name and what stands before it.
const RESPONSE_HEAD_MAX: usize = 300;

impl Responses {
    pub fn new(wrong: Arc<Shared>) -> Self {
        Self { frame: Frame::default(), expected: Expected::default(), wrong, patch: None }
    }

    pub fn expected(&self) -> Expected {
        Arc::clone(&self.expected)
    }

    /// Looks at the next bytes and changes the error code where that is asked for. `nameless`: no response names a broker.
    pub fn see(&mut self, bytes: &mut [u8], nameless: bool) {
        for index in 0..bytes.len() {
            let at = self.frame.step(bytes[index], RESPONSE_HEAD_MAX);
            if at == 7 {
                self.metadata(&mut bytes[index + 1..], nameless);
            }
            let byte = &mut bytes[index];
            if at == 0 {
                self.patch = None;
            }
            if let Some((place, code)) = self.patch
                && (place..place + 2).contains(&at)
            {
                *byte = code[at - place];
            }
            if at >= 7 && self.patch.is_none() {
                self.plan(at);
            }
        }
    }

    /// Of a response that is there as a whole, as small ones are.
    fn metadata(&self, rest: &mut [u8], nameless: bool) {
        let correlation: [u8; 4] = self.frame.head[4..8].try_into().unwrap();
        let mut expected = self.expected.lock().unwrap();
        let Some((METADATA, version)) = expected.get(&correlation).copied() else { return };
        expected.remove(&correlation);
        if nameless {
            assert!(version >= FLEXIBLE && rest.len() >= self.frame.length - 4, "metadata version {version}");
            forget_brokers(rest);
        }
    }

    /// Finds the error code's place as soon as the name's length is known.
    fn plan(&mut self, at: usize) {
        let correlation: [u8; 4] = self.frame.head[4..8].try_into().unwrap();
        let Some((_, version)) = self.expected.lock().unwrap().get(&correlation).copied() else { return };
        let known_at = if version >= FLEXIBLE { 10 } else { 13 };
        if at != known_at {
            return;
        }
        self.expected.lock().unwrap().remove(&correlation);
        let place = if version >= FLEXIBLE {
            // Tags, array of one, name with its length + 1 in a byte, array of one, partition.
            10 + usize::from(self.frame.head[10]) + 1 + 4
        } else {
            14 + usize::from(self.frame.number(12)) + 4 + 4
        };
        let counted = |left: u32| left.checked_sub(1);
        if self.wrong.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted).is_ok() {
            let error = i16::try_from(self.wrong.error.load(Ordering::Relaxed)).unwrap();
            self.patch = Some((place, error.to_be_bytes()));
        }
    }
}

/// Makes the list of brokers empty in what follows a metadata response's correlation id. Its length stays: the cluster's id
/// takes the place of what was there.
fn forget_brokers(rest: &mut [u8]) {
    // Tags, time of throttling, count of brokers + 1; then each: id, host, port, rack, tags.
    let sized = |at: usize| usize::from(rest[at]).max(1);
    let mut at = 6;
    for _ in 1..rest[5] {
        at += 4;
        at += sized(at) + 4;
        at += sized(at) + 1;
    }
    let cluster_id_end = at + sized(at);
    rest[5] = 1;
    rest[6] = u8::try_from(cluster_id_end - 7 + 1).ok().filter(|size| *size < 128).expect("few brokers");
}
