//! A producer whose records stand still, though Kafka would take them: found out by a new client, and replaced by it. Where that
//! one does not even try, the process ends itself.
//!
//! Nothing is ever written for a test: the new client asks the leaders of the lane's topics whether they are there, and then
//! is given the records that wait.

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

/// Between two new clients. Doubled with each producer that was replaced in vain, up to the longest.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// When a new client reaches all leaders the old one has so long to do so too: after an outage both come back.
const GRACE: Duration = Duration::from_secs(3);

/// Then it has until its next statistics: one each 5 s.
const SECOND_LOOK_MAX: Duration = Duration::from_secs(10);

/// For so long a replaced producer may keep what it holds.
const KEEPS_MAX: Duration = Duration::from_secs(20);

/// One for each lane.
#[derive(Default)]
pub(super) struct Stalls {
    lanes: Vec<Stall>,
    looked: Option<Instant>,
    /// The last new client got no further. Until one does there is one at a time, for all lanes.
    refused: Option<Instant>,
}

#[derive(Default)]
struct Stall {
    /// A new client is on its way.
    asked: Option<Asked>,
    ask_from: Option<Instant>,
    /// Producers that were replaced since one last reported anything.
    in_vain: u32,
}

/// A thread that looks for Kafka, and what it has found.
struct Asked {
    thread: Owned,
    answer: mpsc::Receiver<Result<BaseProducer<Reports>, String>>,
}

impl Stalls {
    /// Waits for the threads that ask, as far as they end until then.
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

/// What became of the question to Kafka.
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
        // Its answer is the last that it does.
        self.asked.take().into_iter().for_each(|asked| asked.thread.join_by(Instant::now() + LOOK_EVERY));
        match answer {
            Ok(fresh) if main => self.replace(lane, &current, fresh),
            Ok(fresh) => {
                if alone {
                    lane.replaced(Ailment::StandsStill);
                    lane.retire_alone();
                }
                // It is not needed. Its end is on a thread of its own, as that takes a moment.
                lane.retire(Handle::new(fresh), None);
            }
            Err(why) => {
                tracing::debug!(feed = lane.label, why, "records wait for Kafka: a new client gets no further");
                return Look::Refused;
            }
        }
        Look::Reached
    }

    /// Sends a new client on its way.
    fn ask(&mut self, lane: &Lane, current: &Handle) {
        let (found, answer) = mpsc::sync_channel(1);
        let topics = lane.topics.iter().map(|topic| topic.name()).collect::<Vec<_>>();
        let (connection, reports) = (lane.connection.clone(), lane.reports());
        // It watches what the old one says of itself, and does not keep it from its end meanwhile.
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

/// The lane's producer, and the one of suspects.
fn stand_still(lane: &Lane, current: &Handle) -> (bool, bool) {
    let alone = lane.made_alone().is_some_and(|alone| alone.context().health().stands_still());
    (current.context().health().stands_still(), alone)
}

/// A new client that has reached the leader of each partition, and still does after the old one had time to do so too; or why
/// it got no further. Blocks.
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
    // What does not even try needs no second look.
    let hopeless = || old.health().sends_nothing() && old.reported() == reported;
    let (heard, until) = (old.heard(), Instant::now() + SECOND_LOOK_MAX);
    while !hopeless() && old.heard() == heard && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    // The cluster's word may have been old: a broker that was killed is in sync until it is missed.
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
    // Where the cluster does not tell what it asks for it may be all.
    let least = topic.number("min.insync.replicas").and_then(|least| usize::try_from(least).ok());
    if topic.in_sync < least.unwrap_or(topic.replication) {
        return Err(format!("topic {name}: too few replicas are in sync"));
    }
    Ok(())
}

/// Asks each broker that leads a partition of the topic for an offset: it answers as the leader, or not at all.
fn reach_leaders(client: &BaseProducer<Reports>, topic: &str, timeout: Duration) -> Result<(), String> {
    let said = |error: rdkafka::error::KafkaError| format!("topic {topic}: {error}");
    let metadata = client.client().fetch_metadata(Some(topic), timeout).map_err(said)?;
    let partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
    let led: BTreeMap<i32, i32> = partitions.map(|partition| (partition.leader(), partition.id())).collect();
    led.into_values()
        .try_for_each(|partition| client.client().fetch_watermarks(topic, partition, timeout).map(|_| ()).map_err(said))
}
