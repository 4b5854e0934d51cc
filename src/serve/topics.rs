//! The topics: whether they are there, and take what the producers send.

use super::{Run, StartError};
use crate::{
    config::Config,
    kafka::{self, Connection},
};

/// The topics that the bridge writes to, and what they must be.
pub(super) struct Topics {
    pub names: Vec<String>,
    message_bytes_max: i64,
}

pub(super) enum Found {
    AllRight,
    Created,
    NotYet(String),
}

impl Topics {
    pub fn of(config: &Config) -> Self {
        Self { names: config.topics(), message_bytes_max: config.kafka.message_bytes_max() }
    }

    pub async fn look(&self, connection: &Connection, config: &Config, run: Run) -> Result<Found, StartError> {
        let admin = kafka::admin::Admin::new(connection).map_err(|error| error.to_string())?;
        let mut survey = match tokio::task::block_in_place(|| admin.survey(&self.names)) {
            Ok(survey) => survey,
            Err(error) => return Ok(Found::NotYet(format!("no answer from {}: {error}", connection.brokers()))),
        };
        if !survey.missing.is_empty() {
            let missing: Vec<String> = survey.missing.iter().map(|(name, _)| name.clone()).collect();
            if config.kafka.create_topics {
                let created = admin.create(&missing, &config.kafka).await;
                return Ok(created.map_or_else(|error| Found::NotYet(error.to_string()), |()| Found::Created));
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
        if faults.is_empty() { Ok(Found::AllRight) } else { Err(StartError(faults)) }
    }
}
