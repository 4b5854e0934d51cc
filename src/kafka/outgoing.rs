//! An outgoing record: all that librdkafka needs for it, on the first attempt or a later one.

use rdkafka::{
    Message,
    error::KafkaError,
    message::{Header, Headers as _, OwnedHeaders, OwnedMessage},
    producer::{BaseProducer, BaseRecord, ProducerContext},
};

use super::parcel::Parcel;
use crate::record::{Record, dead_letter};

/// The usual number of headers; librdkafka's list grows beyond it.
const HEADERS_USUAL: usize = 8;

pub(super) struct Outgoing {
    pub(super) record: Record,
    /// Whether its partition was known when it came back: then it has been in a batch, and a broker may have seen it.
    pub(super) batched: bool,
    pub(super) parcel: Box<Parcel>,
}

impl Outgoing {
    pub(super) fn new(record: &Record, parcel: Box<Parcel>) -> Self {
        Self { record: record.clone(), batched: false, parcel }
    }

    /// Makes the outgoing record again from a message whose delivery failed.
    pub(super) fn returned(message: &OwnedMessage, parcel: Box<Parcel>) -> Self {
        let mut record = Record::default();
        record.begin(message.key(), message.timestamp().to_millis().unwrap_or_default());
        for header in message.headers().into_iter().flat_map(OwnedHeaders::iter) {
            record.header(header.key, header.value.unwrap_or_default());
        }
        record.value_mut().extend_from_slice(message.payload().unwrap_or_default());
        Self { record, batched: message.partition() >= 0, parcel }
    }

    /// Gives the record its body's hash as a key, unless it has a key; true when it did. A compacted topic takes no
    /// record without a key, and its only answer is `INVALID_RECORD`. The hash is unique to the event, so compaction
    /// confuses it with no other.
    pub(super) fn give_key(&mut self) -> bool {
        let hash = self.record.headers().find(|(name, _)| *name == dead_letter::BODY).map(|(_, hash)| hash.to_vec());
        let Some(hash) = hash.filter(|_| self.record.key().is_none()) else { return false };
        let mut keyed = Record::default();
        keyed.begin(Some(&hash), self.record.timestamp);
        self.record.headers().for_each(|(name, value)| keyed.header(name, value));
        keyed.value_mut().extend_from_slice(self.record.value());
        self.record = keyed;
        true
    }

    /// Gives the record to librdkafka, which copies it. The parcel then belongs to its delivery report.
    ///
    /// # Errors
    /// librdkafka's error, and the record back.
    #[allow(clippy::result_large_err, reason = "the record itself comes back")]
    pub(super) fn hand_over<C>(self, producer: &BaseProducer<C>) -> Result<(), (KafkaError, Self)>
    where
        C: ProducerContext<DeliveryOpaque = Box<Parcel>>,
    {
        let Self { record, parcel, .. } = self;
        let topic = parcel.topic.name();
        // librdkafka allocates each header. Made here, they are freed by the thread that allocated them (`gate.rs`).
        let headers = record.headers().fold(OwnedHeaders::new_with_capacity(HEADERS_USUAL), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let mut message = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, parcel)
            .payload(record.value())
            .headers(headers)
            .timestamp(record.timestamp);
        message.key = record.key();
        match producer.send(message) {
            Ok(()) => Ok(()),
            Err((error, refused)) => {
                let parcel = refused.delivery_opaque;
                Err((error, Self { record, batched: false, parcel }))
            }
        }
    }
}
