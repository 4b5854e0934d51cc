//! Watches the files of passwords and certificates for Kafka: when they change, each lane gets a new producer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    error::KafkaError,
    producer::{BaseProducer, Producer as _},
};

use super::{
    Connection, LaneId,
    asker::{Asker, NoAnswer},
    client::create_patient,
    lane::Lane,
    lanes::Lanes,
    reach,
    reports::Reports,
    survey::Broker,
    thread::{Owned, Stop},
};
use crate::{files::Files, metrics::Metrics};

/// The time between two looks at the files, and between two tries to connect with their contents.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long all old producers together may commit their records, before the new ones get the rest. At most half of D,
/// as new records wait meanwhile too.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// Takes up the files as they are now, and reads the secrets for all clients made later.
pub(super) fn files(connection: &Connection) -> Files {
    let files = Files::new(connection.files());
    connection.read_secrets();
    files
}

/// Starts the thread that watches the files, if there are any.
pub(super) fn start(
    lanes: &Arc<Lanes>,
    connection: &Connection,
    mut files: Files,
    metrics: &Metrics,
    stop: Arc<Stop>,
) -> Option<Owned> {
    if files.is_empty() {
        return None;
    }
    let (lanes, connection) = (Arc::clone(lanes), connection.clone());
    let (ok, refused) =
        (metrics.kafka_renewals.with_label_values(&["ok"]), metrics.kafka_renewals.with_label_values(&["refused"]));
    let not_in_use = metrics.reload_refused.with_label_values(&["kafka"]);
    Some(Owned::spawn("renew", move || {
        let mut stale: Vec<LaneId> = Vec::new();
        let mut settled_by = None;
        while !stop.is_told_within(LOOK_EVERY) {
            if files.have_changed() {
                connection.read_secrets();
                stale = lanes.iter().map(|lane| lane.id).collect();
                settled_by = None;
                tracing::info!("passwords or certificates for Kafka have changed");
            }
            // A client that is refused for one lane is refused for all, so the other lanes need no try.
            while let Some(lane) = stale.last() {
                if !renewed(lanes.get(*lane), &connection, &mut settled_by) {
                    refused.inc();
                    not_in_use.set(1);
                    break;
                }
                stale.pop();
                if stale.is_empty() {
                    settled_by = None;
                    ok.inc();
                    not_in_use.set(0);
                }
            }
        }
    }))
}

/// Replaces the lane's producer once a new one is let in by each leader; until then the old one stays. The first new
/// producer sets the time by which all must settle: if the old password is no longer valid no old producer can commit,
/// and the lanes must not wait for that one after the other.
fn renewed(lane: &Lane, connection: &Connection, settled_by: &mut Option<Instant>) -> bool {
    match let_in(lane, connection) {
        Ok(fresh) => {
            let settle = SETTLE_MAX.min(connection.answer_by() / 2);
            let settled_by = *settled_by.get_or_insert_with(|| Instant::now() + settle);
            lane.replace_settled(fresh, settled_by);
            tracing::info!(feed = lane.label, "a producer with the new passwords or certificates is in use");
            true
        }
        Err(error) => {
            tracing::warn!(
                feed = lane.label,
                %error,
                "Kafka does not take the new passwords or certificates yet; the old producer stays in use"
            );
            false
        }
    }
}

fn let_in(lane: &Lane, connection: &Connection) -> Result<BaseProducer<Reports>, NotYet> {
    by_each_leader(lane, connection)?;
    let fresh: BaseProducer<Reports> = create_patient(connection, &connection.producer(false), lane.reports())?;
    fresh.client().fetch_metadata(Some(lane.topic.name()), connection.request_timeout())?;
    Ok(fresh)
}

/// Checks that the new secrets work at each leader of the lane's partitions that the old producer still reaches:
/// brokers take up a new CA or password one after the other. A leader that nobody reaches is no reason to stay with the
/// old producer.
fn by_each_leader(lane: &Lane, connection: &Connection) -> Result<(), NotYet> {
    let survey = Asker::new(connection)?.survey(lane.topics.iter().map(|topic| topic.name()))?;
    let leads = |broker: &&Broker| survey.found.iter().any(|topic| topic.leaders.contains(&broker.id));
    let mut refused = reach::refused(connection, survey.brokers.iter().filter(leads), lane.topic.name());
    let old = lane.current();
    // A producer without statistics yet may have reached all of them.
    refused.retain(|(broker, _)| old.context().heard() == 0 || old.context().met().lately(broker));
    if refused.is_empty() {
        return Ok(());
    }
    let refused: Vec<_> = refused.iter().map(|(broker, why)| format!("{}: {why}", broker.address)).collect();
    Err(NotYet::Leader(refused.join("; ")))
}

/// Why the new passwords or certificates are not in use yet.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error(transparent)]
    Client(#[from] KafkaError),
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error("not every leader lets in a client that has them: {0}")]
    Leader(String),
}
