//! The parcel: everything that an accepted event keeps until its record is committed or given up.

use std::{sync::Arc, time::Instant};

use super::{
    Receipt, TopicId,
    counts::{Counts, Outstanding, RecordKind},
    window::Ticket,
};
use crate::{quota::Share, record::Origin};

/// A body that was let in, with its share of the queue.
pub struct Accepted {
    /// The body as it was posted.
    pub body: Arc<[u8]>,
    /// The facts of its request.
    pub origin: Origin,
    /// Its share of the queue, in bytes.
    pub bytes: Share,
}

/// Everything that a record's delivery report needs.
pub(super) struct Parcel {
    /// The body as it was posted: if the topic refuses the record, its dead letter needs it.
    pub(super) body: Arc<[u8]>,
    pub(super) origin: Origin,
    pub(super) topic: TopicId,
    pub(super) kind: RecordKind,
    pub(super) accepted: Instant,
    pub(super) attempts: u32,
    /// Whether the record is produced in a batch of its own: a refusal then is its own fault.
    pub(super) alone: bool,
    pub(super) outstanding: Outstanding,
    ticket: Ticket,
    _bytes: Share,
}

impl Parcel {
    pub(super) fn new(
        topic: TopicId,
        accepted: Accepted,
        kind: RecordKind,
        ticket: Ticket,
        outstanding: Outstanding,
    ) -> Box<Self> {
        let Accepted { body, origin, bytes } = accepted;
        let accepted = Instant::now();
        Box::new(Self {
            body,
            origin,
            topic,
            kind,
            accepted,
            attempts: 0,
            alone: false,
            outstanding,
            ticket,
            _bytes: bytes,
        })
    }

    /// Ends the parcel of a committed record, and counts that in its lane's `counts`.
    pub(super) fn committed(self: Box<Self>, receipt: &Receipt, counts: &Counts) {
        // The count comes before the answer, so that a sender with an answer finds it counted.
        counts.committed(&self.kind, self.accepted.elapsed());
        drop(self.outstanding);
        if !self.ticket.commit(receipt) {
            counts.committed_late();
        }
    }

    /// Turns the parcel into a dead letter's. The dead letter's count begins before the event's ends: a thread that
    /// waits for the last record counts the dead letters after all feeds (`lanes.rs`), so it finds the record at least
    /// once.
    pub(super) fn becomes_dead_letter(&mut self, topic: TopicId, kind: RecordKind, outstanding: Outstanding) {
        self.topic = topic;
        self.kind = kind;
        self.alone = false;
        self.attempts = 1;
        self.outstanding = outstanding;
    }

    /// Whether a request still waits for the receipt.
    pub(super) fn is_awaited(&self) -> bool {
        self.ticket.is_awaited()
    }

    /// Gives the record up, and tells the held requests that it can never be stored.
    pub(super) fn refuse(self: Box<Self>) {
        self.outstanding.give_up();
        self.ticket.refuse();
    }

    /// Gives the record up. The ticket's drop tells the held requests.
    pub(super) fn give_up(self: Box<Self>) {
        self.outstanding.give_up();
    }
}
