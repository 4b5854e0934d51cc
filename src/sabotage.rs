//! Ways to break the promise on purpose, so that the fault suite can show that it catches each. Debug builds only.

/// One way, chosen by `CAUSEWAY_SABOTAGE=ack-before-report` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Answers 200 when the record was handed over.
    AckBeforeReport,
    /// A retry finds a receipt before there is one.
    RememberBeforeCommit,
    /// The drain begins with the producers, not with the connections.
    ProducerClosedFirst,
    /// A record that failed counts as one that is committed.
    FailureIgnored,
    /// The same, for dead letters only.
    DeadLetterFailureIgnored,
    /// The drain waits for nothing.
    DrainWithoutFlush,
    /// The partition is not the one that Java's producers choose.
    KeyHashedAnotherWay,
    /// The thread that takes the delivery reports ends.
    ProducerThreadDies,
    /// The same thread stands still.
    ProducerThreadHangs,
    /// The first producer of each feed takes records and never sends them.
    FirstProducerSendsNothing,
    /// Every producer does.
    ProducersSendNothing,
}

#[cfg(debug_assertions)]
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

    pub fn is_on(self) -> bool {
        static CHOSEN: std::sync::LazyLock<Option<Sabotage>> = std::sync::LazyLock::new(|| {
            #[allow(clippy::disallowed_methods, reason = "no setting: no user may find it in the configuration")]
            let name = std::env::var("CAUSEWAY_SABOTAGE").ok()?;
            let (_, way) = Sabotage::ALL.iter().find(|(known, _)| *known == name)?;
            tracing::error!(sabotage = name, "this bridge is broken on purpose");
            Some(*way)
        });
        *CHOSEN == Some(self)
    }
}

#[cfg(not(debug_assertions))]
impl Sabotage {
    pub const fn is_on(self) -> bool {
        false
    }
}
