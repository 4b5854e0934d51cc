//! A lane's producer as it is lent out, and its end.

use std::{
    convert::Infallible,
    ops::Deref,
    sync::{Arc, OnceLock, mpsc},
    time::{Duration, Instant},
};

use rdkafka::producer::{BaseProducer, Producer as _, PurgeConfig};

use super::{
    reports::Reports,
    thread::{self, Owned},
};

/// A producer that a lane lends out. A replaced one ends only when no thread holds it any more: a thread that borrowed
/// it earlier may still hand it a record.
pub(super) struct Handle {
    producer: Arc<BaseProducer<Reports>>,
    /// Its drop tells the retiring thread that no thread holds the handle. It stands after `producer`, so that it is
    /// dropped later.
    in_use: OnceLock<mpsc::Sender<Infallible>>,
}

impl Handle {
    pub(super) fn new(producer: BaseProducer<Reports>) -> Arc<Self> {
        Arc::new(Self { producer: Arc::new(producer), in_use: OnceLock::new() })
    }

    /// Ends a producer that is not lent out any more, on a thread of its own: the producer's broker threads may be
    /// waiting for a name to be resolved.
    ///
    /// The thread purges and polls until all of the producer's records are reported, as no report comes after its end.
    /// `keeps_max` is set when the producer, and not Kafka, is known to be at fault: its records cannot be produced
    /// again before they come back, so the process ends when they take longer.
    pub(super) fn retire(self: Arc<Self>, keeps_max: Option<Duration>) -> Owned {
        let asked = Instant::now();
        #[allow(clippy::disallowed_methods, reason = "nothing is sent")]
        let (in_use, let_go) = mpsc::channel();
        let _ = self.in_use.set(in_use);
        let producer = Arc::clone(&self.producer);
        drop(self);
        Owned::spawn("retire", move || {
            // The channel closes once no thread holds the handle: from then on the producer is this thread's alone.
            let _ = let_go.recv();
            while producer.in_flight_count() > 0 {
                producer.purge(PurgeConfig::default().queue().inflight().non_blocking());
                producer.poll(Duration::from_millis(100));
                if keeps_max.is_some_and(|max| asked.elapsed() > max) {
                    thread::end("a producer that was replaced does not give back the records that it holds");
                }
            }
        })
    }

    /// Waits until the producer has reported all its records, at most until `settled_by`. librdkafka signals no such
    /// end, so this polls.
    pub(super) fn settle(&self, settled_by: Instant) {
        while self.in_flight_count() > 0 && Instant::now() < settled_by {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Deref for Handle {
    type Target = BaseProducer<Reports>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}
