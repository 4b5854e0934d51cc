//! Ways to break the promise on purpose, so that the fault suite can show that it catches each.
//!
//! The feature `sabotage` guards all of it. Only the tests turn the feature on (`crates/sabotaged`), so nothing of it
//! ships.

use std::{sync::LazyLock, thread, time::Duration};

use rdkafka::ClientConfig;
use tokio::time::Instant;

use super::{
    Producers, Receipt, TopicId,
    counts::{Counts, RecordKind},
    parcel::Parcel,
    window::Ticket,
};

/// One way, chosen by `SABOTAGE=ack-before-report` and so on. It is no key of the configuration, where a user might
/// find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sabotage {
    /// The answer is 200 as soon as the record is handed over.
    AckBeforeReport,
    /// A retry finds a receipt before the record is committed.
    RememberBeforeCommit,
    /// The drain begins with the producers, not with the connections.
    ProducerClosedFirst,
    /// A record that failed counts as committed.
    FailureIgnored,
    /// A dead letter that failed counts as committed.
    DeadLetterFailureIgnored,
    /// The drain waits for nothing.
    DrainWithoutFlush,
    /// The partition differs from the one that Java's producers choose.
    KeyHashedAnotherWay,
    /// The thread that takes the delivery reports dies.
    ProducerThreadDies,
    /// The thread that takes the delivery reports hangs.
    ProducerThreadHangs,
    /// The first producer of each feed takes records and never sends them.
    FirstProducerSendsNothing,
    /// Every producer takes records and never sends them.
    ProducersSendNothing,
}

impl Sabotage {
    const ALL: [(&str, Self); 11] = [
        ("ack-before-report", Self::AckBeforeReport),
        ("remember-before-commit", Self::RememberBeforeCommit),
        ("producer-closed-first", Self::ProducerClosedFirst),
        ("failure-ignored", Self::FailureIgnored),
        ("dead-letter-failure-ignored", Self::DeadLetterFailureIgnored),
        ("drain-without-flush", Self::DrainWithoutFlush),
        ("key-hashed-another-way", Self::KeyHashedAnotherWay),
        ("producer-thread-dies", Self::ProducerThreadDies),
        ("producer-thread-hangs", Self::ProducerThreadHangs),
        ("first-producer-sends-nothing", Self::FirstProducerSendsNothing),
        ("producers-send-nothing", Self::ProducersSendNothing),
    ];

    fn is_on(self) -> bool {
        static CHOSEN: LazyLock<Option<Sabotage>> = LazyLock::new(|| {
            #[allow(clippy::disallowed_methods, reason = "no setting: no user may find it in the configuration")]
            let name = std::env::var("SABOTAGE").ok()?;
            let (_, way) = Sabotage::ALL.iter().find(|(known, _)| *known == name)?;
            tracing::error!(sabotage = name, "this bridge is broken on purpose");
            Some(*way)
        });
        *CHOSEN == Some(self)
    }
}

/// A receipt that proves nothing.
fn forged(topic: TopicId) -> Receipt {
    Receipt { topic, partition: 0, offset: None }
}

/// Acts before a record is handed to its producer.
pub(super) fn hand_over(mut ticket: Ticket, topic: TopicId) -> Ticket {
    let receipt = forged(topic);
    let window = ticket.window.clone();
    let mut state = window.lock();
    if let Some(key) = ticket.key.filter(|_| Sabotage::AckBeforeReport.is_on()) {
        let _ = state.end(&key).map(|under_way| under_way.tell(receipt));
    }
    if let Some(key) = ticket.key.filter(|_| Sabotage::RememberBeforeCommit.is_on()) {
        let now = window.seconds();
        window.remember(&mut state, key, &receipt, now, now);
        // The held requests go on waiting under another key, where no retry finds them.
        let nobodys = state.key_alone();
        if let Some(mut moved) = state.end(&key) {
            moved.key = nobodys;
            state.under_way.insert_unique(nobodys.hash(), moved, |it| it.key.hash());
            ticket.key = Some(nobodys);
        }
    }
    drop(state);
    ticket
}

/// Acts at each delivery report, on the thread that takes them.
pub(super) fn report() {
    if Sabotage::ProducerThreadHangs.is_on() {
        thread::sleep(Duration::from_secs(3600));
    }
    #[allow(clippy::panic, reason = "it is what this one is for")]
    if Sabotage::ProducerThreadDies.is_on() {
        panic!("as the sabotage says");
    }
}

/// Acts on a record that failed; `None` when the failure was taken for a commit.
pub(super) fn fail(parcel: Box<Parcel>, counts: &Counts) -> Option<Box<Parcel>> {
    let dead_letter = matches!(parcel.kind, RecordKind::DeadLetter { .. });
    if Sabotage::FailureIgnored.is_on() || dead_letter && Sabotage::DeadLetterFailureIgnored.is_on() {
        let receipt = forged(parcel.topic);
        parcel.committed(&receipt, counts);
        return None;
    }
    Some(parcel)
}

/// Changes the properties of every producer.
pub(super) fn producer(client: &mut ClientConfig) {
    if Sabotage::KeyHashedAnotherWay.is_on() {
        client.set("partitioner", "consistent_random");
    }
    if Sabotage::ProducersSendNothing.is_on() {
        send_nothing(client);
    }
}

/// Changes the properties of a lane's first producer.
pub(super) fn first_producer(mut client: ClientConfig) -> ClientConfig {
    if Sabotage::FirstProducerSendsNothing.is_on() {
        send_nothing(&mut client);
    }
    client
}

/// Makes a producer hold its records for as long as they live.
fn send_nothing(client: &mut ClientConfig) {
    let message_timeout = client.get("message.timeout.ms").and_then(|ms| ms.parse::<u64>().ok()).unwrap_or_default();
    client.set("linger.ms", message_timeout.saturating_sub(1).to_string());
}

/// Acts before the drain; returns the time by which the drain must end.
pub fn drain(producers: &Producers, end: Instant) -> Instant {
    if Sabotage::ProducerClosedFirst.is_on() {
        producers.dismiss();
    }
    if Sabotage::DrainWithoutFlush.is_on() { Instant::now() } else { end }
}
