//! One feed's part of the bridge: its route, its lane, its held requests and its counts.

use std::sync::Once;

use prometheus::IntCounter;

use super::held::Held;
use crate::{
    kafka::{LaneId, TopicId},
    metrics::Metrics,
    record::{Made, Route},
};

/// One feed: how its records are made, and its counts.
pub struct FeedLane {
    /// The feed's route.
    pub route: Route,
    /// The feed's lane in `kafka/`.
    pub lane: LaneId,
    /// The topic of each of the route's targets.
    topics: Vec<TopicId>,
    /// The feed's held requests.
    pub held: Held,
    unknown_members: IntCounter,
    null_keys: IntCounter,
    /// The counts of events by major number of `api_version`; `other` is the last.
    majors: [Major; 11],
}

/// The count of one major number, and whether it was told once in the log.
struct Major {
    counter: IntCounter,
    told: Once,
}

/// The major number of `api_version` that the built-in schemas were written for.
const KNOWN_MAJOR: usize = 1;

/// The position of the count for every other `api_version`.
const OTHER_MAJOR: usize = 10;

impl FeedLane {
    /// Puts the parts together. `topics` are those of the route's targets, in their order.
    pub fn new(route: Route, lane: LaneId, topics: &[TopicId], held: Held, metrics: &Metrics) -> Self {
        let label = [route.label.as_str()];
        Self {
            lane,
            topics: topics.to_vec(),
            held,
            unknown_members: metrics.unknown_members.with_label_values(&label),
            null_keys: metrics.null_keys.with_label_values(&label),
            majors: std::array::from_fn(|number| Major::new(number, &route.label, metrics)),
            route,
        }
    }

    /// The topic of a record that this route made.
    #[allow(clippy::indexing_slicing, reason = "a position among the route's own targets, each with its topic here")]
    pub fn topic(&self, made: &Made<'_>) -> TopicId {
        self.topics[made.target]
    }

    /// Counts an event that was handed over to Kafka.
    pub fn count(&self, made: &Made<'_>) {
        if made.extras > 0 {
            self.unknown_members.inc_by(made.extras as u64);
        }
        if made.has_null_key() {
            self.null_keys.inc();
        }
        let major = major(made.facts.api_version);
        let Some(counted) = self.majors.get(major.unwrap_or(OTHER_MAJOR)) else { return };
        counted.counter.inc();
        if major != Some(KNOWN_MAJOR) {
            counted.told.call_once(|| {
                tracing::warn!(
                    feed = self.route.label,
                    major = major_label(major.unwrap_or(OTHER_MAJOR)),
                    "first event of another major api_version: `extras` keeps what its schema does not name"
                );
            });
        }
    }
}

impl Major {
    fn new(number: usize, feed: &str, metrics: &Metrics) -> Self {
        let label = major_label(number);
        Self { counter: metrics.events_by_major.with_label_values(&[feed, label.as_str()]), told: Once::new() }
    }
}

/// The label of a major number in metrics and logs: a sender's own text goes into neither.
fn major_label(number: usize) -> String {
    if number == OTHER_MAJOR { "other".to_owned() } else { number.to_string() }
}

/// The major number, 0 to 9, of a text like `v1.3.0` or `1.3.0`; `None` for any other text.
fn major(api_version: &str) -> Option<usize> {
    let text = api_version.strip_prefix(['v', 'V']).unwrap_or(api_version);
    let (major, _) = text.split_once('.').unwrap_or((text, ""));
    major.parse().ok().filter(|major| *major <= 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majors() {
        for (text, expected) in
            [("v1.3.0", Some(1)), ("2", Some(2)), ("v10.0", None), ("string", None), ("", None), ("v-1.0", None)]
        {
            assert_eq!(major(text), expected, "{text}");
        }
    }
}
