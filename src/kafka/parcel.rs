//! The parcel: all that an accepted event keeps until its record is committed or given up.

use std::{sync::Arc, time::Instant};

use super::{
    Receipt, TopicId,
    counts::{Counts, Outstanding, RecordKind},
    window::Ticket,
};
use crate::{quota::Share, record::Origin};

/// A body that was let in, with the room that was taken for it.
pub struct Accepted {
    pub body: Arc<[u8]>,
    pub origin: Origin,
    pub bytes: Share,
}

/// Everything that a record's delivery report needs.
pub(super) struct Parcel {
    /// The body as it was posted, for the dead letter should the topic refuse its record.
    pub(super) body: Arc<[u8]>,
    pub(super) origin: Origin,
    pub(super) topic: TopicId,
    pub(super) kind: RecordKind,
    pub(super) accepted: Instant,
    pub(super) attempts: u32,
    /// Produced in a batch of its own: what is refused now is refused for itself.
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

    /// Its record is committed: `counts` are its lane's.
    pub(super) fn committed(self: Box<Self>, receipt: &Receipt, counts: &Counts) {
        // Counted before it is answered, so that who was answered finds it counted.
        counts.committed(&self.kind, self.accepted.elapsed());
        drop(self.outstanding);
        if !self.ticket.commit(receipt) {
            counts.committed_late();
        }
    }

    /// Goes on as a dead letter. It counts as one before it counts as an event no more: who waits for the last record counts the
    /// dead letters after all feeds (`lanes.rs`), and so finds it in one of them at least.
    pub(super) fn becomes_dead_letter(&mut self, topic: TopicId, kind: RecordKind, outstanding: Outstanding) {
        self.topic = topic;
        self.kind = kind;
        self.alone = false;
        self.attempts = 1;
        self.outstanding = outstanding;
    }

    /// Whether a request still waits for it.
    pub(super) fn is_awaited(&self) -> bool {
        self.ticket.is_awaited()
    }

    /// The requests that wait for it are told that the record can never be stored.
    pub(super) fn refuse(self: Box<Self>) {
        self.outstanding.give_up();
        self.ticket.refuse();
    }

    /// Whoever waits is told by the ticket's end.
    pub(super) fn give_up(self: Box<Self>) {
        self.outstanding.give_up();
    }
}
