//! Passwords and certificates for Kafka that change on disk: each lane gets a producer that has them.

use std::{
    mem,
    sync::{Arc, PoisonError, Weak},
    time::{Duration, Instant},
};

use rdkafka::{
    error::KafkaError,
    producer::{BaseProducer, Producer as _},
};

use super::{
    Connection,
    client::create_patient,
    producer::{Lane, Producers},
    reports::Reports,
    watch,
};
use crate::{files::Files, metrics::Metrics};

/// Between two looks at the files, and between two tries to get in with what they hold.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the old producer may take to commit what it has, before the new one is given the rest.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// Starts the thread that looks at the files, if there are any. It ends when the producers are gone.
pub(super) fn start(producers: &Arc<Producers>, connection: &Connection, metrics: &Arc<Metrics>) {
    let mut files = Files::new(connection.files());
    if files.is_empty() {
        return;
    }
    let (producers, connection) = (Arc::downgrade(producers), connection.clone());
    let (ok, refused) =
        (metrics.kafka_renewals.with_label_values(&["ok"]), metrics.kafka_renewals.with_label_values(&["refused"]));
    let not_in_use = metrics.reload_refused.with_label_values(&["kafka"]);
    watch::spawn("renew", move || {
        let mut stale: Vec<usize> = Vec::new();
        while let Some(producers) = look(&producers) {
            if files.have_changed() {
                connection.read_secrets();
                stale = (0..producers.lanes.len()).collect();
                tracing::info!("passwords or certificates for Kafka have changed");
            }
            // Who is refused for one lane is refused for all.
            while let Some(lane) = stale.last().and_then(|lane| producers.lanes.get(*lane)) {
                if !renewed(lane, &connection) {
                    refused.inc();
                    not_in_use.set(1);
                    break;
                }
                stale.pop();
                if stale.is_empty() {
                    ok.inc();
                    not_in_use.set(0);
                }
            }
        }
    });
}

fn look(producers: &Weak<Producers>) -> Option<Arc<Producers>> {
    std::thread::sleep(LOOK_EVERY);
    producers.upgrade()
}

/// The old producer stays until a new one was let in.
fn renewed(lane: &Lane, connection: &Connection) -> bool {
    match let_in(lane, connection) {
        Ok(fresh) => {
            lane.gate.shut();
            let settled_by = Instant::now() + SETTLE_MAX;
            while lane.current().in_flight_count() > 0 && Instant::now() < settled_by {
                std::thread::sleep(Duration::from_millis(5));
            }
            lane.replace(fresh);
            lane.gate.reopen();
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

fn let_in(lane: &Lane, connection: &Connection) -> Result<BaseProducer<Reports>, KafkaError> {
    let fresh: BaseProducer<Reports> = create_patient(&connection.producer(false), lane.reports())?;
    let topic = lane.topics.first().copied();
    fresh.client().fetch_metadata(topic, connection.request_timeout())?;
    Ok(fresh)
}

impl Lane {
    /// Puts `fresh` in the producer's place. What the old one still held comes back as purged and is produced again.
    pub(super) fn replace(&self, fresh: BaseProducer<Reports>) {
        let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        let old = mem::replace(&mut *current, Arc::new(fresh));
        drop(current);
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Ending a producer takes a moment: not under a lock that records pass, and not on the thread of who still polls it.
        while [Some(&old), alone.as_ref()].into_iter().flatten().any(|it| Arc::strong_count(it) > 1) {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop((old, alone));
    }
}
