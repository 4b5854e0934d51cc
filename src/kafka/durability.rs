//! Checks, while the bridge runs, that the topics keep acked records, as far as the cluster tells.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime;

use super::{
    Connection,
    admin::Admin,
    survey::{Survey, Topic},
    thread::{Owned, Stop},
};
use crate::metrics::Metrics;

/// The time between two checks.
pub const EVERY: Duration = Duration::from_secs(300);

/// The fault of a topic that was deleted together with its acked records.
const MISSING: &str = "missing";

/// The owner of the checking thread. Its drop tells the thread to end.
pub struct Watching {
    stop: Arc<Stop>,
    thread: Option<Owned>,
}

impl Watching {
    /// Tells the thread to end and waits for that until `deadline`: a check under way takes some seconds where a broker
    /// does not answer.
    pub fn end(mut self, deadline: Instant) {
        self.stop.tell();
        self.thread.take().into_iter().for_each(|thread| thread.join_by(deadline));
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop.tell();
    }
}

/// Starts a thread that checks `topics` at once, and again each time `every` has passed. A metric keeps its value where
/// the cluster does not answer.
///
/// The check has a thread of its own, as it may take some seconds, which events do not have.
pub fn watch(connection: &Connection, topics: Vec<String>, metrics: &Arc<Metrics>, every: Duration) -> Watching {
    let (connection, metrics, stop) = (connection.clone(), Arc::clone(metrics), Arc::new(Stop::default()));
    let told = Arc::clone(&stop);
    let run = move || {
        look(&connection, &topics, &metrics);
        while !told.is_told_within(every) {
            look(&connection, &topics, &metrics);
        }
    };
    let thread = Owned::start("durability", run);
    let thread = thread.map_err(|error| tracing::warn!(%error, "the topics' durability is not looked at")).ok();
    Watching { stop, thread }
}

fn look(connection: &Connection, topics: &[String], metrics: &Metrics) {
    match survey(connection, topics, false) {
        Ok(survey) => topics.iter().for_each(|topic| publish(topic, &survey, metrics)),
        Err(error) => tracing::debug!(error, "the topics' durability could not be looked at"),
    }
}

/// Surveys the topics with new clients: those of the flow are not held up, and new ones use the newest passwords.
pub(super) fn survey(connection: &Connection, topics: &[String], quiet: bool) -> Result<Survey, String> {
    let admin = if quiet { Admin::quiet(connection) } else { Admin::new(connection) };
    let admin = admin.map_err(|error| error.to_string())?;
    let mut survey = admin.survey(topics).map_err(|error| error.to_string())?;
    let runtime = runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    runtime.block_on(admin.describe(&mut survey));
    Ok(survey)
}

fn publish(topic: &str, survey: &Survey, metrics: &Metrics) {
    let found = survey.found.iter().find(|found| found.name == topic);
    let why = survey.missing.iter().find(|(missing, _)| missing == topic).map(|(_, why)| *why);
    // A topic that this user may not see may still exist.
    let missing = found.map(|_| false).or_else(|| why.filter(|why| why.is_unknown()).map(|_| true));
    let unknown = || Topic::default().faults().map(|(fault, _)| (fault, None));
    for (fault, is) in found.map_or_else(unknown, Topic::faults).into_iter().chain([(MISSING, missing)]) {
        let labels = [topic, fault];
        match is {
            Some(is) => metrics.topic_faults.with_label_values(&labels).set(i64::from(is)),
            // The topic may never have existed, so there is nothing to report.
            None => drop(metrics.topic_faults.remove_label_values(&labels)),
        }
    }
}
