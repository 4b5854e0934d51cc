//! Whether the topics keep what was acked, as far as the cluster tells: looked at while the bridge runs.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::runtime;

use super::{
    Connection,
    admin::{Admin, Survey, Topic},
};
use crate::metrics::Metrics;

/// Between two looks.
pub const EVERY: Duration = Duration::from_secs(300);

/// The fault of a topic that was deleted, with what was acked in it.
const MISSING: &str = "missing";

/// Starts a thread that looks at `topics` now and then; it ends when nobody has the metrics any more. What the cluster does
/// not answer stays as it was last seen.
///
/// A thread of its own, that nobody waits for: a look may take some seconds, which neither events nor the end of the process have.
pub fn watch(connection: &Connection, topics: Vec<String>, metrics: &Arc<Metrics>, every: Duration) {
    let (connection, metrics) = (connection.clone(), Arc::downgrade(metrics));
    let look = move || {
        while look(&connection, &topics, &metrics) {
            std::thread::sleep(every);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("durability".to_owned()).spawn(look) {
        tracing::warn!(%error, "the topics' durability is not looked at");
    }
}

/// Whether there is a next time.
fn look(connection: &Connection, topics: &[String], metrics: &Weak<Metrics>) -> bool {
    let survey = survey(connection, topics, false);
    let Some(metrics) = metrics.upgrade() else { return false };
    match survey {
        Ok(survey) => topics.iter().for_each(|topic| publish(topic, &survey, &metrics)),
        Err(error) => tracing::debug!(error, "the topics' durability could not be looked at"),
    }
    true
}

/// By clients of its own: those of the flow are not held up, and new ones have the newest passwords.
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
    let why = survey.missing.iter().find(|(missing, _)| missing == topic).map(|(_, why)| why.as_str());
    // One that may not be seen may be there.
    let missing = found.map(|_| false).or_else(|| why.filter(|why| why.contains("UnknownTopic")).map(|_| true));
    let unknown = || Topic::default().faults().map(|(fault, _)| (fault, None));
    for (fault, is) in found.map_or_else(unknown, Topic::faults).into_iter().chain([(MISSING, missing)]) {
        let labels = [topic, fault];
        match is {
            Some(is) => metrics.topic_faults.with_label_values(&labels).set(i64::from(is)),
            // It may never have been there.
            None => drop(metrics.topic_faults.remove_label_values(&labels)),
        }
    }
}
