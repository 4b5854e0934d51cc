//! A client that surveys topics.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
    producer::{DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};

use super::{Connection, keeper::Keeper, log, survey::Survey, token::NoToken};

/// Asks for metadata, and hears why an answer is missing.
///
/// rdkafka's `AdminClient` would not do: nobody polls its main queue, so librdkafka's reports of a broker that cannot
/// be reached, or refuses us, would never be heard.
pub(super) struct Asker {
    client: ThreadedProducer<Said>,
    said: Arc<Mutex<Option<String>>>,
    token: Keeper,
    timeout: Duration,
}

impl Asker {
    /// Connects with logging.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub(super) fn new(connection: &Connection) -> Result<Self, KafkaError> {
        Self::make(connection, false)
    }

    /// Connects without logging.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub(super) fn quiet(connection: &Connection) -> Result<Self, KafkaError> {
        Self::make(connection, true)
    }

    fn make(connection: &Connection, quiet: bool) -> Result<Self, KafkaError> {
        let said = Arc::new(Mutex::default());
        let client = connection.client().create_with_context(Said { said: Arc::clone(&said), quiet })?;
        Ok(Self { client, said, token: Keeper::new(connection), timeout: connection.request_timeout() })
    }

    /// Surveys `topics`.
    ///
    /// # Errors
    /// [`NoAnswer`]: no broker answered, or there is no token.
    pub(super) fn survey<'a>(&self, topics: impl IntoIterator<Item = &'a str>) -> Result<Survey, NoAnswer> {
        let mut survey = Survey::default();
        for topic in topics {
            survey.add(topic, &self.ask(topic)?);
        }
        Ok(survey)
    }

    /// Asks for the topic's metadata.
    ///
    /// # Errors
    /// [`NoAnswer`]: no broker answered, or there is no token.
    pub(super) fn ask(&self, topic: &str) -> Result<Metadata, NoAnswer> {
        self.token.keep(self.client.client())?;
        let answer = self.client.client().fetch_metadata(Some(topic), self.timeout);
        answer.map_err(|error| NoAnswer::new(error, &self.said))
    }
}

/// Keeps, and logs, the reason why the cluster could not be reached; never one reason twice in a row.
struct Said {
    said: Arc<Mutex<Option<String>>>,
    quiet: bool,
}

impl ClientContext for Said {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        if !self.quiet {
            log::line("admin", level, fac, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows from earlier reports about each broker. It comes again with every attempt to
        // connect: forty times a second, each time twice (rdkafka 0.39).
        let follows = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if said.as_deref().is_some_and(|said| follows || cause(said) == cause(reason)) {
            return;
        }
        if !self.quiet {
            tracing::warn!(client = "admin", %error, reason, "Kafka client error");
        }
        *said = Some(reason.to_owned());
    }
}

/// The reason without the duration and the number of suppressed repeats that librdkafka appends.
fn cause(reason: &str) -> &str {
    reason.split_once(" (after ").map_or(reason, |(cause, _)| cause)
}

impl ProducerContext for Said {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Why the cluster gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// There is no token for the request.
    #[error(transparent)]
    Token(#[from] NoToken),
    /// No broker answered; `said` is librdkafka's last word on the reason.
    #[error("{}", .said.clone().unwrap_or_else(|| .error.to_string()))]
    Cluster { error: KafkaError, said: Option<String> },
}

impl NoAnswer {
    fn new(error: KafkaError, said: &Mutex<Option<String>>) -> Self {
        Self::Cluster { error, said: said.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }
}
