//! A record in our own hands: before librdkafka has it, and after it came back.

use rdkafka::{
    Message,
    message::{BorrowedHeaders, BorrowedMessage, Header, OwnedHeaders},
};

use super::reports::Parcel;
use crate::record::Record;

/// Everything needed to send a record, once more if need be.
pub(super) struct Letter {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Vec<u8>,
    pub(super) headers: Option<OwnedHeaders>,
    /// Milliseconds since 1970.
    pub(super) timestamp: Option<i64>,
    /// Negative as long as librdkafka has given it none.
    pub(super) partition: i32,
    pub(super) parcel: Box<Parcel>,
}

impl Letter {
    pub(super) fn new(record: &Record, parcel: Box<Parcel>) -> Self {
        let mut headers = OwnedHeaders::new_with_capacity(10);
        for (key, value) in record.headers.iter() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        Self {
            key: record.key.clone(),
            value: record.value.clone(),
            headers: Some(headers),
            timestamp: Some(record.timestamp),
            partition: -1,
            parcel,
        }
    }

    /// Of a record whose delivery failed.
    pub(super) fn returned(message: &BorrowedMessage<'_>, parcel: Box<Parcel>) -> Self {
        Self {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: message.headers().map(BorrowedHeaders::detach),
            timestamp: message.timestamp().to_millis(),
            partition: message.partition(),
            parcel,
        }
    }
}
