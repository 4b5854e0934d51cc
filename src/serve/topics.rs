//! The look at the topics that the bridge writes to, repeated until all are right. If configured, missing topics are
//! created.

use std::collections::BTreeMap;

use super::{Run, StartError};
use crate::{
    config::Config,
    kafka::{
        Connection,
        admin::{Admin, CreateError, Survey},
        reach::topics_without_leader,
    },
};

/// The topics that the bridge writes to, with their demands.
pub(super) struct Topics {
    pub names: Vec<String>,
    message_bytes_max: i64,
}

/// The outcome of a look at the topics.
pub(super) enum Found {
    AllRight,
    Created,
    NotYet(String),
}

impl Topics {
    pub fn of(config: &Config) -> Self {
        Self { names: config.topics(), message_bytes_max: config.kafka.message_bytes_max() }
    }

    /// # Errors
    /// Topics that are too small for what the producers may send: no waiting heals that.
    pub async fn look(&self, connection: &Connection, config: &Config, run: Run) -> Result<Found, StartError> {
        let admin = Admin::new(connection).map_err(|error| error.to_string())?;
        let mut survey = match tokio::task::block_in_place(|| admin.survey(&self.names)) {
            Ok(survey) => survey,
            Err(error) => return Ok(Found::NotYet(format!("no answer from {}: {error}", connection.brokers()))),
        };
        let hidden: Vec<_> = survey.missing.iter().filter(|(_, why)| why.is_hidden()).collect();
        if !hidden.is_empty() {
            let list: Vec<_> = hidden.iter().map(|(name, why)| format!("{name} ({why})")).collect();
            return Ok(Found::NotYet(format!(
                "not shown: {}; may this user Describe and Write them?",
                list.join(", ")
            )));
        }
        if !survey.missing.is_empty() {
            let missing: Vec<String> = survey.missing.iter().map(|(name, _)| name.clone()).collect();
            if config.kafka.create_topics {
                let created = admin.create(&missing, &config.kafka).await;
                return Ok(match created {
                    Ok(()) => Found::Created,
                    Err(error) => {
                        let (what, remedy) = not_created(&error, config, &survey);
                        Found::NotYet(format!("{what}; {remedy}"))
                    }
                });
            }
            let list: Vec<String> = survey.missing.iter().map(|(name, why)| format!("{name} ({why})")).collect();
            return Ok(Found::NotYet(format!(
                "missing: {}; run `causeway topics --apply`, or set kafka.create_topics = true",
                list.join(", ")
            )));
        }
        if run != (Run::Dev { embedded: true }) {
            admin.describe(&mut survey).await;
        }
        let too_small = survey.found.iter().filter_map(|topic| {
            Some((topic, topic.number("max.message.bytes").filter(|max| *max < self.message_bytes_max)?))
        });
        let faults: Vec<String> = too_small
            .map(|(topic, max)| {
                format!(
                    "topic {} has max.message.bytes = {max}, below message.max.bytes = {} of the producer: raise the topic's, or lower [kafka.client] \"message.max.bytes\" (and ingress.body_bytes_max to at most 16384 less)",
                    topic.name, self.message_bytes_max
                )
            })
            .collect();
        if !faults.is_empty() {
            return Err(StartError(faults));
        }
        let look = || topics_without_leader(connection, &survey.brokers, &survey.found);
        let unreached = tokio::task::block_in_place(look);
        Ok(if unreached.is_empty() { Found::AllRight } else { Found::NotYet(not_reached(&unreached)) })
    }
}

/// Topics whose leaders refuse the bridge, grouped by reason.
fn not_reached(topics: &BTreeMap<String, String>) -> String {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (topic, why) in topics {
        reasons.entry(why).or_default().push(topic);
    }
    let say = |(why, topics): (&&str, &Vec<&str>)| match *why {
        "" => format!("{} has no leader", topics.join(", ")),
        why => format!("no leader of {} lets this bridge in: {why}", topics.join(", ")),
    };
    let reasons: Vec<_> = reasons.iter().map(say).collect();
    format!("{}; `causeway check` tells what to do about each broker", reasons.join("; "))
}

/// The reason why topics could not be created, and the remedy.
pub fn not_created(error: &CreateError, config: &Config, survey: &Survey) -> (String, String) {
    let brokers = survey.brokers.len();
    let replication = config.kafka.topics.replication;
    let remedy = if error.is_replication() {
        format!(
            "kafka.topics.replication = {replication}, and the cluster has {brokers} broker(s): set it to what the cluster has (below 3, a lost broker may take acked events with it)"
        )
    } else if error.is_forbidden() {
        "grant this user Create on the topics, or let somebody create them who may".to_owned()
    } else if let CreateError::Token(why) = error {
        why.remedy.to_owned()
    } else {
        "see [kafka.topics] in the configuration, and the broker's log".to_owned()
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    (format!("{error}{cause}"), remedy)
}
