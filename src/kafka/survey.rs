//! A cluster's own description of its topics and brokers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use rdkafka::{
    error::RDKafkaErrorCode,
    metadata::{Metadata, MetadataBroker, MetadataPartition},
};

/// A topic as the cluster describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topic {
    /// The topic's name.
    pub name: String,
    /// The number of partitions.
    pub partitions: usize,
    /// The smallest number of replicas that any partition has.
    pub replication: usize,
    /// The smallest number of in-sync replicas that any partition has now.
    pub in_sync: usize,
    /// The number of partitions without a leader.
    pub leaderless: usize,
    /// The ids of the brokers that lead the other partitions.
    pub leaders: BTreeSet<i32>,
    /// Its configuration, defaults included; `None` where the broker does not tell (no DescribeConfigs right, or the
    /// embedded broker).
    pub settings: Option<BTreeMap<String, String>>,
}

impl Topic {
    /// The topic's possible faults by name: settings and states that lose acked events or stop new ones. Each is true
    /// or false, or `None` where the cluster does not tell.
    pub fn faults(&self) -> [(&'static str, Option<bool>); 6] {
        let is = |setting: &str, word: &str| Some(self.settings.as_ref()?.get(setting)?.contains(word));
        let replicas = i64::try_from(self.replication).unwrap_or(i64::MAX);
        // With 1, one broker alone may hold an acked event; with all replicas, one broker down stops all writes.
        let in_sync_min = |min: i64| min < 2 && replicas > 2 || min >= replicas.max(2);
        [
            ("leader", Some(self.leaderless > 0)),
            ("replication", Some(self.replication < 3)),
            ("in_sync", Some(self.in_sync < self.replication)),
            ("min.insync.replicas", self.number("min.insync.replicas").map(in_sync_min)),
            ("unclean.leader.election.enable", is("unclean.leader.election.enable", "true")),
            ("cleanup.policy", is("cleanup.policy", "compact")),
        ]
    }

    /// One of the topic's settings as a number.
    pub fn number(&self, setting: &str) -> Option<i64> {
        self.settings.as_ref()?.get(setting)?.parse().ok()
    }
}

/// A broker as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// The broker's id.
    pub id: i32,
    /// Its advertised address: `host:port`, an IPv6 address in brackets.
    pub address: String,
}

impl Broker {
    fn of(told: &MetadataBroker) -> Self {
        let host = told.host();
        let address = match host.contains(':') {
            true => format!("[{host}]:{}", told.port()),
            false => format!("{host}:{}", told.port()),
        };
        Self { id: told.id(), address }
    }
}

/// The cluster's answer about topics.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The brokers of the cluster.
    pub brokers: Vec<Broker>,
    /// The topics that exist.
    pub found: Vec<Topic>,
    /// The topics that were not found, each with the reason.
    pub missing: Vec<(String, Missing)>,
}

/// Why a topic was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The broker's answer does not name it.
    NotNamed,
    /// The broker answered with this code.
    Code(RDKafkaErrorCode),
}

impl Missing {
    /// Whether no such topic exists.
    pub fn is_unknown(self) -> bool {
        use RDKafkaErrorCode::{UnknownTopic, UnknownTopicId, UnknownTopicOrPartition};
        matches!(self, Self::Code(UnknownTopicOrPartition | UnknownTopic | UnknownTopicId))
    }

    /// Whether this user may not see the topic, which may exist.
    pub fn is_hidden(self) -> bool {
        matches!(self, Self::Code(code) if is_unauthorized(code))
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNamed => f.write_str("not in the broker's answer"),
            Self::Code(code) => write!(f, "{code:?}"),
        }
    }
}

/// Whether the broker knows the user, and forbids the request.
pub(super) fn is_unauthorized(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::DelegationTokenAuthorizationFailed
    )
}

impl Survey {
    /// Takes up the answer about the topic of this name.
    pub(super) fn add(&mut self, name: &str, metadata: &Metadata) {
        self.brokers = metadata.brokers().iter().map(Broker::of).collect();
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            self.missing.push((name.to_owned(), Missing::NotNamed));
            return;
        };
        if let Some(error) = topic.error() {
            self.missing.push((name.to_owned(), Missing::Code(error.into())));
            return;
        }
        let partitions = topic.partitions();
        self.found.push(Topic {
            name: name.to_owned(),
            partitions: partitions.len(),
            replication: partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
            in_sync: partitions.iter().map(|partition| partition.isr().len()).min().unwrap_or(0),
            leaderless: partitions.iter().filter(|partition| partition.leader() < 0).count(),
            leaders: partitions.iter().map(MetadataPartition::leader).filter(|leader| *leader >= 0).collect(),
            settings: None,
        });
    }

    /// The brokers' advertised addresses.
    pub fn addresses(&self) -> Vec<&str> {
        self.brokers.iter().map(|broker| broker.address.as_str()).collect()
    }
}
