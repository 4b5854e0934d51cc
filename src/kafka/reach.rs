//! Whether each broker lets us in, tried at its own address with the TLS and SASL of all our clients.
//!
//! An answer from the cluster shows only that one broker let us in, and a connection shows only that something listens.
//! But events go to each broker that leads a partition, at the address that it advertises.

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
    /// Its `host:port`.
    pub address: String,
    /// librdkafka's reason.
    pub why: String,
    /// Whether its certificate is valid but for the name by which we call the broker.
    pub misnamed: bool,
}

/// Tries each broker at its address here, many at the same time, as a silent one takes a whole request's time. Returns
/// those that do not let us in, in their order. `topic` is any that we may see. Blocks.
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

/// The brokers among these that do not let us in, each with the reason. Blocks.
pub(super) fn refused<'a>(
    connection: &Connection,
    brokers: impl Iterator<Item = &'a Broker>,
    topic: &str,
) -> Vec<(&'a Broker, String)> {
    ask_all(brokers, |broker| Some((broker, reach(connection, &broker.address, topic).err()?)))
}

/// The largest number of clients at a time.
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

/// Tries one broker; the error is the reason why it does not let us in.
fn reach(connection: &Connection, address: &str, topic: &str) -> Result<(), String> {
    let asker = Asker::new(&connection.at(address)).map_err(|error| error.to_string())?;
    asker.ask(topic).map(drop).map_err(|error| error.to_string())
}

/// OpenSSL's and librdkafka's words when a certificate's CA, time or name is wrong; they do not say which one.
const NOT_VERIFIED: &str = "certificate verify failed";

/// Whether the certificate is refused only for the broker's name. This uses TLS alone, as no password should go to a
/// broker of another name. A broker that wants a password then ends the connection after the handshake, which still
/// shows a valid certificate.
fn is_known_by_another_name(connection: &Connection, address: &str, topic: &str) -> bool {
    let without_name = reach(&connection.nameless(), address, topic);
    without_name.map_or_else(|why| !why.contains(NOT_VERIFIED), |()| true)
}

/// The topics without any leader that lets us in, each with the reason. One leader suffices: the other partitions may
/// be led by a broker that is away for now, and the bridge can begin without it. Blocks.
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

/// How long a connection counts: the statistics, 5 s apart, may miss the successor of one that just ended.
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
