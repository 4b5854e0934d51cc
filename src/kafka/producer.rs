//! All producers: records in, delivery reports out, each as a [`Receipt`](super::Receipt).

use std::{
    convert::Infallible,
    mem,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use rdkafka::error::KafkaError;

use super::{
    Connection, LaneId, TopicId,
    counts::{Drained, RecordKind},
    hand_round,
    ids::Mint,
    lane::{Lane, LaneSpec, Shared},
    lanes::Lanes,
    outgoing::Outgoing,
    pace,
    parcel::{Accepted, Parcel},
    redelivery, renew,
    reports::Failed,
    thread::{Owned, Stop},
    window::{Entered, Key, Ticket, Window},
};
use crate::{
    metrics::Metrics,
    record::{Record, Refused},
};

/// How long a committed event is remembered beyond `message.timeout.ms`, the longest time that the sender tries.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// The specs of all lanes.
#[derive(Debug, Clone)]
pub struct LaneSpecs {
    /// The feeds' lanes.
    pub feeds: Vec<LaneSpec>,
    /// The dead letters' lane.
    pub dead_letters: LaneSpec,
}

/// All lanes, and the threads that serve them.
pub struct Producers {
    pub(super) lanes: Arc<Lanes>,
    pub(super) window: Arc<Window>,
    redelivery: mpsc::Sender<Failed>,
    stop: Arc<Stop>,
    threads: Mutex<Vec<Owned>>,
    /// The thread of `pace.rs`, for waking it.
    opener: std::thread::Thread,
    /// This channel closes at the drop of `_in_use`, the last field.
    let_go: Mutex<Option<mpsc::Receiver<Infallible>>>,
    _in_use: mpsc::Sender<Infallible>,
}

impl Producers {
    /// Makes a producer for each lane. The producers connect in the background.
    ///
    /// # Errors
    /// librdkafka refuses the configuration, or there are more lanes or topics than ids.
    pub fn start(
        connection: &Connection,
        specs: &LaneSpecs,
        message_timeout: Duration,
        dedupe_bytes_max: usize,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<Self>, KafkaError> {
        #[allow(clippy::disallowed_methods, reason = "bounded by queue_bytes_max: every record in it holds its share")]
        let (failed, failures) = mpsc::channel();
        #[allow(clippy::disallowed_methods, reason = "nothing is sent")]
        let (in_use, let_go) = mpsc::channel();
        let (to_opener, paced) = mpsc::sync_channel(1);
        let stop = Arc::new(Stop::default());
        let pace = pace::start(paced, Arc::clone(&stop));
        let opener = pace.thread();
        // Files that change after this line are noticed.
        let files = renew::files(connection);
        let drained = Arc::new(Drained::default());
        let shared = Shared {
            connection,
            metrics,
            failed: failed.clone(),
            opener: opener.clone(),
            drained: Arc::clone(&drained),
        };
        let mut mint = Mint::default();
        let feeds = specs.feeds.iter().map(|spec| Lane::new(&mut mint, spec, false, &shared));
        let feeds = feeds.collect::<Result<Vec<_>, _>>()?;
        let dead_letters = Lane::new(&mut mint, &specs.dead_letters, true, &shared)?;
        let lanes = Lanes::new(feeds, dead_letters, message_timeout, drained);
        let window = Window::new(mint.topics(), dedupe_bytes_max, message_timeout + REMEMBERED_FOR, metrics);
        let redelivery = redelivery::start(Arc::clone(&lanes), failures);
        let _ = to_opener.send(Arc::clone(&lanes));
        let renew = renew::start(&lanes, connection, files, metrics, Arc::clone(&stop));
        let tokens = hand_round::start(&lanes, connection, metrics, Arc::clone(&stop));
        let threads = [pace, redelivery].into_iter().chain(renew).chain(tokens).collect();
        Ok(Arc::new(Self {
            lanes,
            window,
            redelivery: failed,
            stop,
            threads: Mutex::new(threads),
            opener,
            let_go: Mutex::new(Some(let_go)),
            _in_use: in_use,
        }))
    }

    /// The feeds' lanes in the order of their specs, each with its topics, its own first.
    pub fn feeds(&self) -> impl Iterator<Item = (LaneId, &[TopicId])> {
        let feeds = self.lanes.iter().filter(|lane| lane.id != self.lanes.dead_letters().lane());
        feeds.map(|lane| (lane.id, lane.topics.as_slice()))
    }

    /// Looks an event up in the dedupe window: it may be under way, or committed of late.
    pub fn enter(&self, key: Key) -> Entered {
        self.window.enter(key)
    }

    /// Looks a dead letter up in the dedupe window, by its body's hash alone.
    pub fn enter_dead_letter(&self, body_hash: u128) -> Entered {
        self.window.enter(Key::dead_letter(self.lanes.dead_letters().lane(), body_hash))
    }

    /// Makes a ticket for a record that no other can equal, such as a stub.
    pub fn enter_alone(&self) -> Entered {
        self.window.alone()
    }

    /// Ends all held requests' waits; the records under way go on.
    pub fn dismiss(&self) {
        self.window.dismiss();
    }

    /// Hands an event's `record` to the producer of the topic's lane, which waits out every fault of Kafka.
    pub fn send_event(&self, topic: TopicId, record: &Record, accepted: Accepted, ticket: Ticket) {
        self.send(topic, record, accepted, RecordKind::Event, ticket);
    }

    /// Hands a dead letter to its producer; `record` was filled by [`Record::fill_dead_letter`]. `feed` is the label of
    /// the event's feed, if known.
    pub fn send_dead_letter(
        &self,
        record: &Record,
        refused: &Refused<'_>,
        feed: Option<&str>,
        accepted: Accepted,
        ticket: Ticket,
    ) {
        let kind = RecordKind::DeadLetter { stage: refused.stage(), feed: feed.map(str::to_owned) };
        self.send(self.lanes.dead_letters(), record, accepted, kind, ticket);
    }

    fn send(&self, topic: TopicId, record: &Record, accepted: Accepted, kind: RecordKind, ticket: Ticket) {
        #[cfg(feature = "sabotage")]
        let ticket = super::sabotage::hand_over(ticket, topic);
        let lane = self.lanes.get(topic.lane());
        let parcel = Parcel::new(topic, accepted, kind, ticket, lane.begin());
        lane.produce(Outgoing::new(record, parcel));
    }

    /// The number of records that are not committed yet.
    pub fn outstanding(&self) -> usize {
        self.lanes.outstanding()
    }

    /// The labels of the lanes whose producer does not send its records, though it could.
    pub fn at_fault(&self) -> Vec<&str> {
        self.lanes.iter().filter(|lane| lane.is_at_fault()).map(|lane| lane.label.as_str()).collect()
    }

    /// Blocks until every record is committed, at most until `deadline`; then gives the rest up.
    ///
    /// Returns the number of records given up.
    ///
    /// A producer may be replaced meanwhile: its returned records still count, and are produced again as long as the
    /// drain lasts. After that, redelivery gives up its records and any that still come back, and the gates give up
    /// theirs. A record that is handed over at this very moment goes to librdkafka, and nobody waits for its report any
    /// more.
    pub fn drain(&self, deadline: Instant) -> usize {
        self.lanes.wait_drained(deadline);
        let left = self.outstanding();
        let _ = self.redelivery.send(Failed::GiveUp);
        self.lanes.iter().for_each(Lane::clear);
        left
    }

    /// Blocks until the threads and the producers have ended, at most until `deadline`. A producer whose thread waits
    /// for a name to be resolved ends only after that, and cannot be hurried.
    pub fn close(self: Arc<Self>, deadline: Instant) {
        self.tell_threads(deadline);
        let threads = mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let let_go = self.let_go.lock().unwrap_or_else(PoisonError::into_inner).take();
        let lanes = Arc::clone(&self.lanes);
        drop(self);
        threads.into_iter().for_each(|thread| thread.join_by(deadline));
        lanes.iter().for_each(|lane| lane.join_retired(deadline));
        // The drop of a producer waits for librdkafka's own threads.
        let closing = Owned::spawn("close", move || {
            let _ = let_go.and_then(|let_go| let_go.recv().ok());
            drop(lanes);
        });
        closing.join_by(deadline);
    }

    fn tell_threads(&self, deadline: Instant) {
        self.stop.tell();
        self.opener.unpark();
        let _ = self.redelivery.send(Failed::Stop { by: deadline });
    }
}

/// Without [`Producers::close`], as after a command that has drained, the threads end too, but nobody waits for them.
impl Drop for Producers {
    fn drop(&mut self) {
        self.tell_threads(Instant::now());
    }
}

#[cfg(test)]
mod tests;
