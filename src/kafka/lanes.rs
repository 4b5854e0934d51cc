//! All lanes, with one look-up that cannot fail.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{LaneId, TopicId, counts::Drained, lane::Lane};

pub(super) struct Lanes {
    /// In the order of their ids, the dead letters' lane last.
    lanes: Vec<Lane>,
    /// The only topic of the dead letters' lane.
    dead_letters: TopicId,
    pub(super) message_timeout: Duration,
    drained: Arc<Drained>,
}

impl Lanes {
    /// The lanes of `feeds`, then that of `dead_letters`, come in the order in which their ids were minted.
    pub(super) fn new(
        feeds: Vec<Lane>,
        dead_letters: Lane,
        message_timeout: Duration,
        drained: Arc<Drained>,
    ) -> Arc<Self> {
        let topic = dead_letters.topic;
        let lanes = feeds.into_iter().chain([dead_letters]).collect();
        Arc::new(Self { lanes, dead_letters: topic, message_timeout, drained })
    }

    #[allow(clippy::indexing_slicing, reason = "an id is minted for each lane that stands here, and for no other")]
    pub(super) fn get(&self, id: LaneId) -> &Lane {
        &self.lanes[id.place()]
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Lane> {
        self.lanes.iter()
    }

    pub(super) fn dead_letters(&self) -> TopicId {
        self.dead_letters
    }

    /// The number of records that are not committed yet.
    ///
    /// The dead letters are counted last. A record that becomes a dead letter is counted there before its count in its
    /// feed's lane ends, so this finds it in one of the two. If the dead letters were counted first, the record could
    /// arrive there after that look, and leave its feed's lane before the other.
    pub(super) fn outstanding(&self) -> usize {
        self.lanes.iter().map(|lane| lane.counts.outstanding()).sum()
    }

    /// Blocks until every record is committed or given up, at most until `deadline`.
    pub(super) fn wait_drained(&self, deadline: Instant) {
        self.drained.wait(deadline, || self.outstanding());
    }
}
