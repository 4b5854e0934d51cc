//! As much of Kafka's protocol as a proxy needs: where a produce request is and which topic it names, where its response has
//! the error code, and which brokers the response to a metadata request names.
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

    /// The error, if there is one more to come.
    fn take(&self) -> Option<i16> {
        counted(&self.left).then(|| i16::try_from(self.error.load(Ordering::Relaxed)).unwrap())
    }
}

/// Whether there was one left.
fn counted(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// How much of a chunk passes before the connection ends.
pub enum Part {
    Whole,
    Until(usize),
}

/// A request without a response yet that is looked at.
#[derive(Clone, Copy)]
pub struct Asked {
    key: u16,
    version: u16,
    /// It is kept from its topic: what its response is to say instead of the broker's word.
    refused: Option<i16>,
}

/// By correlation id.
type Expected = Arc<Mutex<HashMap<[u8; 4], Asked>>>;

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

/// From the client: length, key, version, correlation id, client id; a produce request then names one topic.
pub struct Requests {
    frame: Frame,
    expected: Expected,
    refused: Arc<Shared>,
    /// Where this request has the last byte of its topic's name, if it is kept from it.
    misled: Option<usize>,
}

/// A topic's name and what stands before it.
const HEAD_MAX: usize = 300;

/// No topic's name has it at its end: one that does is not there.
const NOWHERE: u8 = b'~';

impl Requests {
    pub fn new(expected: Expected, refused: Arc<Shared>) -> Self {
        Self { frame: Frame::default(), expected, refused, misled: None }
    }

    /// Looks at the next bytes; a produce request that begins in them is cut in its middle when `to_break` says so.
    pub fn see(&mut self, bytes: &mut [u8], to_break: &AtomicU32) -> Part {
        for index in 0..bytes.len() {
            let at = self.frame.step(bytes[index], HEAD_MAX);
            if at == 0 {
                self.misled = None;
            }
            if at == 11 && self.began(to_break) {
                return Part::Until((index + self.frame.length / 2).min(bytes.len()));
            }
            if self.misled == Some(0)
                && let Some(last) = self.name_end(at)
            {
                self.misled = Some(last);
            }
            if at > 11 && self.misled == Some(at) {
                bytes[index] = NOWHERE;
            }
        }
        Part::Whole
    }

    /// Remembers the request whose head is there; whether it is to break.
    fn began(&mut self, to_break: &AtomicU32) -> bool {
        let (key, version) = (self.frame.number(4), self.frame.number(6));
        if ![PRODUCE, METADATA].contains(&key) {
            return false;
        }
        let refused = if key == PRODUCE { self.refused.take() } else { None };
        if refused.is_some() {
            assert!(version >= FLEXIBLE, "produce version {version}");
            self.misled = Some(0);
        }
        let correlation = self.frame.head[8..12].try_into().unwrap();
        self.expected.lock().unwrap().insert(correlation, Asked { key, version, refused });
        key == PRODUCE && counted(to_break)
    }

    /// Where the topic's name ends, as soon as its length is known: after client id, tags, transactional id (none), acks,
    /// timeout and the number of topics.
    fn name_end(&self, at: usize) -> Option<usize> {
        let length_at = (at >= 13).then(|| 14 + usize::from(self.frame.number(12)) + 1 + 1 + 2 + 4 + 1)?;
        (at == length_at).then(|| length_at + usize::from(self.frame.head[length_at]) - 1)
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
            let at = self.frame.step(bytes[index], HEAD_MAX);
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
        let Some(Asked { key: METADATA, version, .. }) = expected.get(&correlation).copied() else { return };
        expected.remove(&correlation);
        if nameless {
            assert!(version >= FLEXIBLE && rest.len() >= self.frame.length - 4, "metadata version {version}");
            forget_brokers(rest);
        }
    }

    /// Finds the error code's place as soon as the name's length is known.
    fn plan(&mut self, at: usize) {
        let correlation: [u8; 4] = self.frame.head[4..8].try_into().unwrap();
        let Some(Asked { version, refused, .. }) = self.expected.lock().unwrap().get(&correlation).copied() else {
            return;
        };
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
        self.patch = refused.or_else(|| self.wrong.take()).map(|error| (place, error.to_be_bytes()));
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
