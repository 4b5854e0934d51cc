//! Lanes and their topics, as only their owner names them: nobody else can make an id, so no look-up can fail.

use rdkafka::error::KafkaError;

/// One of the lanes of [`Producers`](super::Producers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneId(u16);

/// A topic that a lane writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicId {
    lane: LaneId,
    /// Its place among the topics of all lanes.
    number: u16,
    /// A topic's name lives as long as the process: there are few, and no event has to count who uses it.
    name: &'static str,
}

/// Gives each lane and each topic an id, in order.
#[derive(Default)]
pub(super) struct Mint {
    lanes: u16,
    topics: Vec<TopicId>,
}

/// All topics of all lanes.
pub(super) struct Topics(Vec<TopicId>);

impl LaneId {
    /// No lane has this number: the window keeps it for records that belong to none.
    pub(super) const NOBODYS: u16 = u16::MAX;

    pub(super) fn number(self) -> u16 {
        self.0
    }

    /// The place of the lane in a list of them all.
    pub(super) fn place(self) -> usize {
        usize::from(self.0)
    }

    #[cfg(test)]
    pub(super) const FIRST: Self = Self(0);
}

impl TopicId {
    pub(super) fn lane(self) -> LaneId {
        self.lane
    }

    pub(super) fn number(self) -> u16 {
        self.number
    }

    pub(super) fn name(self) -> &'static str {
        self.name
    }
}

impl Mint {
    /// # Errors
    /// When there are no numbers left.
    pub(super) fn lane(&mut self) -> Result<LaneId, KafkaError> {
        let lane = LaneId(self.lanes);
        self.lanes += 1;
        if lane.0 == LaneId::NOBODYS { Err(too_many("feeds")) } else { Ok(lane) }
    }

    /// # Errors
    /// When there are no numbers left.
    pub(super) fn topic(&mut self, lane: LaneId, name: &str) -> Result<TopicId, KafkaError> {
        let number = u16::try_from(self.topics.len()).map_err(|_| too_many("topics"))?;
        let topic = TopicId { lane, number, name: name.to_owned().leak() };
        self.topics.push(topic);
        Ok(topic)
    }

    pub(super) fn topics(self) -> Topics {
        Topics(self.topics)
    }
}

fn too_many(what: &str) -> KafkaError {
    KafkaError::ClientCreation(format!("more {what} than a bridge can tell apart"))
}

impl Topics {
    #[allow(clippy::indexing_slicing, reason = "a number comes from a topic's id, and each id stands here")]
    pub(super) fn numbered(&self, number: u16) -> TopicId {
        self.0[usize::from(number)]
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|topic| topic.name)
    }
}
