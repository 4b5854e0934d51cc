//! All lanes, with one look-up that cannot fail.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{LaneId, TopicId, counts::Drained, lane::Lane};

pub(super) struct Lanes {
    /// In the order of their ids, the dead letters' last.
    lanes: Vec<Lane>,
    /// Where dead letters go: the only topic of their lane.
    dead_letters: TopicId,
    pub(super) message_timeout: Duration,
    drained: Arc<Drained>,
}

impl Lanes {
    /// `feeds`, then `dead_letters`, come in the order in which their ids were minted.
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

    /// Records that are not committed yet.
    ///
    /// The dead letters are counted last: a record that becomes one is begun there before it ends in its feed's lane, so it is found
    /// in one of the two. Were they counted first it could be begun behind that look, and end before the other.
    pub(super) fn outstanding(&self) -> usize {
        self.lanes.iter().map(|lane| lane.counts.outstanding()).sum()
    }

    /// Waits until every record is committed or given up, at most until `deadline`. Blocks.
    pub(super) fn wait_drained(&self, deadline: Instant) {
        self.drained.wait(deadline, || self.outstanding());
    }
}
