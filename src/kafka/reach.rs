//! Whether a broker lets us in: asked at its own address, by the TLS and SASL that all our clients have.
//!
//! An answer from the cluster shows that one broker let us in, and a connection shows only that somebody listens. Events go to
//! each broker that leads a partition, at the address that it advertises.

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rdkafka::Statistics;

use super::{
    Connection,
    asker::Asker,
    survey::{Broker, Topic},
};

/// A broker that does not let us in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    pub address: String,
    /// In librdkafka's words.
    pub why: String,
    /// Its certificate would do, were it not for the name that we call it by.
    pub misnamed: bool,
}

/// Asks each broker at the address that it has here, many at the same time: one that is silent takes a whole request's time.
/// Gives those that do not let us in, in their order. `topic` is one that we may see; blocks.
pub fn unreached<'a>(
    connection: &Connection,
    addresses: impl IntoIterator<Item = &'a str>,
    topic: &str,
) -> Vec<Unreached> {
    let ask = |address: &str| {
        let why = reach(connection, address, topic).err()?;
        let misnamed = why.contains(NOT_VERIFIED) && is_known_by_another_name(connection, address, topic);
        Some(Unreached { address: address.to_owned(), why, misnamed })
    };
    ask_all(addresses, ask)
}

/// The brokers among these that do not let us in, each with why; blocks.
pub(super) fn refused<'a>(
    connection: &Connection,
    brokers: impl Iterator<Item = &'a Broker>,
    topic: &str,
) -> Vec<(&'a Broker, String)> {
    ask_all(brokers, |broker| Some((broker, reach(connection, &broker.address, topic).err()?)))
}

/// So many clients are there at a time.
const ASKED_AT_ONCE: usize = 16;

fn ask_all<B: Send, T: Send>(brokers: impl IntoIterator<Item = B>, ask: impl Fn(B) -> Option<T> + Sync) -> Vec<T> {
    let (ask, mut brokers, mut answers) = (&ask, brokers.into_iter().peekable(), Vec::new());
    while brokers.peek().is_some() {
        thread::scope(|scope| {
            let some = brokers.by_ref().take(ASKED_AT_ONCE);
            let asked: Vec<_> = some.map(|broker| scope.spawn(move || ask(broker))).collect();
            let answer = |asked: thread::ScopedJoinHandle<'_, _>| asked.join().unwrap_or_else(|it| resume_unwind(it));
            answers.extend(asked.into_iter().filter_map(answer));
        });
    }
    answers
}

/// The error says why not.
fn reach(connection: &Connection, address: &str, topic: &str) -> Result<(), String> {
    let asker = Asker::new(&connection.at(address)).map_err(|error| error.to_string())?;
    asker.ask(topic).map(drop).map_err(|error| error.to_string())
}

/// How OpenSSL and librdkafka say that a certificate's CA, time or name is wrong; they do not say which.
const NOT_VERIFIED: &str = "certificate verify failed";

/// The certificate is refused with the name in question, and is not without: TLS alone, as no password should go to a broker
/// of another name. One that wants a password then ends the connection after the handshake.
fn is_known_by_another_name(connection: &Connection, address: &str, topic: &str) -> bool {
    let without_name = reach(&connection.nameless(), address, topic);
    without_name.map_or_else(|why| !why.contains(NOT_VERIFIED), |()| true)
}

/// Which topics have no leader that lets us in, each with why. A topic is fine with one: its other partitions may be
/// led by a broker that is away for now, which is no reason not to begin.
pub fn topics_without_leader(
    connection: &Connection,
    brokers: &[Broker],
    topics: &[Topic],
) -> BTreeMap<String, String> {
    let mut asked: BTreeMap<i32, Result<(), String>> = BTreeMap::new();
    let mut without = BTreeMap::new();
    for topic in topics {
        let mut why = Vec::new();
        let mut reached = |leader: &Broker| {
            let ask = || reach(connection, &leader.address, &topic.name);
            let answer = asked.entry(leader.id).or_insert_with(ask);
            answer.as_ref().map_err(|reason| why.push(format!("{}: {reason}", leader.address))).is_ok()
        };
        let mut leaders = brokers.iter().filter(|broker| topic.leaders.contains(&broker.id));
        if !leaders.any(&mut reached) {
            without.insert(topic.name.clone(), why.join("; "));
        }
    }
    without
}

/// The brokers that a producer was connected to, by its own statistics.
#[derive(Default)]
pub(super) struct Met(Mutex<BTreeMap<i32, Instant>>);

/// A connection may be between its end and its successor when the statistics, 5 s apart, look at it.
const LATELY: Duration = Duration::from_secs(15);

impl Met {
    pub(super) fn note(&self, statistics: &Statistics) {
        let up = statistics.brokers.values().filter(|broker| broker.nodeid >= 0 && broker.state == "UP");
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.extend(up.map(|broker| (broker.nodeid, Instant::now())));
    }

    pub(super) fn lately(&self, broker: &Broker) -> bool {
        let met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.get(&broker.id).is_some_and(|at| at.elapsed() < LATELY)
    }
}
