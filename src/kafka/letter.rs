//! A record on its own: all that librdkafka needs to be given it, now, later or again.

use std::sync::Arc;

use rdkafka::{
    Message,
    error::KafkaError,
    message::{Header, OwnedHeaders, OwnedMessage},
    producer::{BaseProducer, BaseRecord, ProducerContext},
};

use super::reports::Parcel;
use crate::record::Record;

pub(super) struct Letter {
    pub(super) key: Option<Vec<u8>>,
    value: Vec<u8>,
    headers: OwnedHeaders,
    timestamp: i64,
    /// The partition was known when it came back: it has been in a batch, and a broker may have seen it.
    pub(super) batched: bool,
    pub(super) parcel: Box<Parcel>,
}

impl Letter {
    pub(super) fn new(record: &Record, parcel: Box<Parcel>) -> Self {
        let mut headers = OwnedHeaders::new_with_capacity(10);
        for (key, value) in record.headers.iter() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let (key, value) = (record.key.clone(), record.value.clone());
        Self { key, value, headers, timestamp: record.timestamp, batched: false, parcel }
    }

    /// Of a message whose delivery failed.
    pub(super) fn returned(message: &OwnedMessage, parcel: Box<Parcel>) -> Self {
        Self {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: message.headers().cloned().unwrap_or_else(OwnedHeaders::new),
            timestamp: message.timestamp().to_millis().unwrap_or_default(),
            batched: message.partition() >= 0,
            parcel,
        }
    }

    /// Gives it to librdkafka, whose delivery report has the parcel from then on.
    ///
    /// # Errors
    /// What librdkafka has against it, and the letter back.
    #[allow(clippy::result_large_err, reason = "the letter itself comes back")]
    pub(super) fn hand_over<C>(self, producer: &BaseProducer<C>) -> Result<(), (KafkaError, Self)>
    where
        C: ProducerContext<DeliveryOpaque = Box<Parcel>>,
    {
        let Self { key, value, headers, timestamp, parcel, .. } = self;
        let topic = Arc::clone(&parcel.topic);
        let mut message = BaseRecord::<[u8], [u8], _>::with_opaque_to(&topic, parcel)
            .payload(&value)
            .headers(headers)
            .timestamp(timestamp);
        message.key = key.as_deref();
        let (error, headers, parcel) = match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((error, refused)) => (error, refused.headers, refused.delivery_opaque),
        };
        let headers = headers.unwrap_or_else(OwnedHeaders::new);
        Err((error, Self { key, value, headers, timestamp, batched: false, parcel }))
    }
}
