//! Finds a producer whose records stand still though Kafka would take them, and replaces it. If its successor does not
//! even try to send, the process ends itself.
//!
//! Nothing is ever written as a test. A new client asks the leaders of the lane's topics whether they are there, and
//! then becomes the producer of the waiting records.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use rdkafka::producer::{BaseProducer, Producer as _};

use super::{
    Connection,
    client::create_patient,
    durability,
    handle::Handle,
    health::Ailment,
    lane::Lane,
    lanes::Lanes,
    reports::Reports,
    survey::{Survey, Topic},
    thread::{self, Owned},
};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The time between two new clients. It doubles with each producer that was replaced in vain, up to the maximum.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// When a new client reaches all leaders, the old one has this long to do so too: after an outage both come back.
const GRACE: Duration = Duration::from_secs(3);

/// After the grace, the old one has until its next statistics (one each 5 s), at most this long.
const SECOND_LOOK_MAX: Duration = Duration::from_secs(10);

/// How long a replaced producer may keep its records before the process ends.
const KEEPS_MAX: Duration = Duration::from_secs(20);

/// The state of the search, for all lanes.
#[derive(Default)]
pub(super) struct Stalls {
    lanes: Vec<Stall>,
    looked: Option<Instant>,
    /// When the last new client failed to reach Kafka. Until one succeeds, there is one at a time for all lanes.
    refused: Option<Instant>,
}

#[derive(Default)]
struct Stall {
    /// The new client under way.
    asked: Option<Asked>,
    ask_from: Option<Instant>,
    /// The number of producers replaced since one last reported a record.
    in_vain: u32,
}

/// A thread with a new client, and the channel for its result.
struct Asked {
    thread: Owned,
    answer: mpsc::Receiver<Result<BaseProducer<Reports>, String>>,
}

impl Stalls {
    /// Waits for the threads of new clients, at most until `deadline`.
    pub(super) fn join_by(self, deadline: Instant) {
        let asked = self.lanes.into_iter().filter_map(|stall| stall.asked);
        asked.for_each(|asked| asked.thread.join_by(deadline));
    }

    /// Looks at each lane once a second. Never waits for Kafka.
    pub(super) fn look(&mut self, lanes: &Lanes) {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        self.lanes.resize_with(lanes.iter().len(), Stall::default);
        let mut under_way = self.lanes.iter().filter(|stall| stall.asked.is_some()).count();
        for (lane, stall) in lanes.iter().zip(&mut self.lanes) {
            let may_ask = self.refused.is_none_or(|at| under_way == 0 && at.elapsed() >= PAUSE);
            match stall.look(lane, may_ask) {
                Look::Asked => under_way += 1,
                Look::Reached => self.refused = None,
                Look::Refused => self.refused = Some(Instant::now()),
                Look::Nothing => {}
            }
        }
    }
}

/// The result of a look at one lane.
enum Look {
    Nothing,
    Asked,
    Reached,
    Refused,
}

impl Stall {
    fn look(&mut self, lane: &Lane, may_ask: bool) -> Look {
        let current = lane.current();
        let (main, alone) = stand_still(lane, &current);
        if self.in_vain > 0 && !main && current.context().reported() > 0 {
            tracing::info!(feed = lane.label, "the new producer is at work");
            self.in_vain = 0;
            lane.set_own_fault(false);
        }
        let Some(Asked { answer, .. }) = &self.asked else {
            if (main || alone) && may_ask && self.ask_from.is_none_or(|from| from <= Instant::now()) {
                self.ask(lane, &current);
                return Look::Asked;
            }
            return Look::Nothing;
        };
        let answer = match answer.try_recv() {
            Ok(answer) => answer,
            Err(mpsc::TryRecvError::Empty) => return Look::Nothing,
            Err(mpsc::TryRecvError::Disconnected) => Err("its thread ended".to_owned()),
        };
        // The answer is the thread's last act, so the join is short.
        self.asked.take().into_iter().for_each(|asked| asked.thread.join_by(Instant::now() + LOOK_EVERY));
        match answer {
            Ok(fresh) if main => self.replace(lane, &current, fresh),
            Ok(fresh) => {
                if alone {
                    lane.replaced(Ailment::StandsStill);
                    lane.retire_alone();
                }
                // The client is not needed. Its end takes a moment, so it has a thread of its own.
                lane.retire(Handle::new(fresh), None);
            }
            Err(why) => {
                tracing::debug!(feed = lane.label, why, "records wait for Kafka: a new client gets no further");
                return Look::Refused;
            }
        }
        Look::Reached
    }

    /// Starts a thread with a new client.
    fn ask(&mut self, lane: &Lane, current: &Handle) {
        let (found, answer) = mpsc::sync_channel(1);
        let topics = lane.topics.iter().map(|topic| topic.name()).collect::<Vec<_>>();
        let (connection, reports) = (lane.connection.clone(), lane.reports());
        // The thread watches the old producer's reports, without keeping that producer alive.
        let old = Arc::clone(current.context());
        let run = move || drop(found.send(reach(&connection, &topics, reports, &old)));
        self.asked = Some(Asked { thread: Owned::spawn("probe", run), answer });
    }

    fn replace(&mut self, lane: &Lane, current: &Handle, fresh: BaseProducer<Reports>) {
        if self.in_vain > 0 && current.context().health().sends_nothing() {
            thread::end(&format!(
                "{}'s producer takes records and sends none, as did the one before, though every leader can be reached",
                lane.label
            ));
        }
        lane.replaced(Ailment::StandsStill);
        lane.set_own_fault(current.context().health().sends_nothing());
        lane.replace(fresh, Some(KEEPS_MAX));
        self.ask_from = Some(Instant::now() + (PAUSE * 2_u32.saturating_pow(self.in_vain)).min(PAUSE_MAX));
        self.in_vain += 1;
    }
}

/// Whether the lane's producer stands still, and whether the producer of suspects does.
fn stand_still(lane: &Lane, current: &Handle) -> (bool, bool) {
    let alone = lane.made_alone().is_some_and(|alone| alone.context().health().stands_still());
    (current.context().health().stands_still(), alone)
}

/// Makes a new client that reaches the leader of each partition twice; between, the old client has time to reach them
/// too. The error is the reason why it failed. Blocks.
fn reach(
    connection: &Connection,
    topics: &[&str],
    reports: Reports,
    old: &Reports,
) -> Result<BaseProducer<Reports>, String> {
    let names: Vec<_> = topics.iter().map(|topic| (*topic).to_owned()).collect();
    let reported = old.reported();
    can_store(&durability::survey(connection, &names, true)?)?;
    let client = create_patient(connection, &connection.producer(false), reports).map_err(|error| error.to_string())?;
    let reach_leaders =
        || topics.iter().try_for_each(|topic| reach_leaders(&client, topic, connection.request_timeout()));
    reach_leaders()?;
    std::thread::sleep(GRACE);
    // A producer that does not even try needs no second look.
    let hopeless = || old.health().sends_nothing() && old.reported() == reported;
    let (heard, until) = (old.heard(), Instant::now() + SECOND_LOOK_MAX);
    while !hopeless() && old.heard() == heard && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    // The cluster's first answer may have been stale: a killed broker counts as in sync until it is missed.
    can_store(&durability::survey(connection, &names, true)?)?;
    reach_leaders()?;
    Ok(client)
}

fn can_store(survey: &Survey) -> Result<(), String> {
    match survey.missing.first() {
        Some((topic, why)) => Err(format!("topic {topic}: {why}")),
        None => survey.found.iter().try_for_each(can_store_in),
    }
}

/// Whether each partition has a leader and as many replicas in sync as its topic asks for.
fn can_store_in(topic: &Topic) -> Result<(), String> {
    let name = &topic.name;
    if topic.leaderless > 0 {
        return Err(format!("topic {name}: a partition has no leader"));
    }
    // If the cluster does not tell the setting, it may ask for all replicas.
    let least = topic.number("min.insync.replicas").and_then(|least| usize::try_from(least).ok());
    if topic.in_sync < least.unwrap_or(topic.replication) {
        return Err(format!("topic {name}: too few replicas are in sync"));
    }
    Ok(())
}

/// Asks each broker that leads a partition of the topic for an offset: only a leader answers that.
fn reach_leaders(client: &BaseProducer<Reports>, topic: &str, timeout: Duration) -> Result<(), String> {
    let said = |error: rdkafka::error::KafkaError| format!("topic {topic}: {error}");
    let metadata = client.client().fetch_metadata(Some(topic), timeout).map_err(said)?;
    let partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
    let led: BTreeMap<i32, i32> = partitions.map(|partition| (partition.leader(), partition.id())).collect();
    led.into_values()
        .try_for_each(|partition| client.client().fetch_watermarks(topic, partition, timeout).map(|_| ()).map_err(said))
}
