//! The ids of lanes and topics. Only their owner can make an id, so no look-up by one can fail.

use rdkafka::error::KafkaError;

/// The id of a lane of [`Producers`](super::Producers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneId(u16);

/// The id of a topic that a lane writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicId {
    lane: LaneId,
    /// The topic's position among the topics of all lanes.
    number: u16,
    /// The name, leaked for the life of the process: there are few topics, and so no event has to count references.
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
    /// A number that no lane has: the dedupe window uses it for records of no lane.
    pub(super) const NOBODYS: u16 = u16::MAX;

    pub(super) fn number(self) -> u16 {
        self.0
    }

    /// The lane's position in a list of all lanes.
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
    /// No number is left.
    pub(super) fn lane(&mut self) -> Result<LaneId, KafkaError> {
        let lane = LaneId(self.lanes);
        self.lanes += 1;
        if lane.0 == LaneId::NOBODYS { Err(too_many("feeds")) } else { Ok(lane) }
    }

    /// # Errors
    /// No number is left.
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
