//! A lane's producer as it is lent to whoever uses it, and its end.

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

/// A producer that a lane gives out. One that is replaced ends once nobody has it any more: whoever was given it before may
/// still hand it a record.
pub(super) struct Handle {
    producer: Arc<BaseProducer<Reports>>,
    /// Closed when nobody has the handle any more. It stands behind the producer, so that it is dropped after that.
    in_use: OnceLock<mpsc::Sender<Infallible>>,
}

impl Handle {
    pub(super) fn new(producer: BaseProducer<Reports>) -> Arc<Self> {
        Arc::new(Self { producer: Arc::new(producer), in_use: OnceLock::new() })
    }

    /// Ends a producer that nobody is given any more, on a thread of its own: its broker threads may be waiting for a name
    /// to be resolved.
    ///
    /// It is asked until all that it held has been reported: what it keeps beyond its end would never be. One of which it is known
    /// that Kafka is not why has `keeps_max` for it, as its records cannot be produced again before.
    pub(super) fn retire(self: Arc<Self>, keeps_max: Option<Duration>) -> Owned {
        let asked = Instant::now();
        #[allow(clippy::disallowed_methods, reason = "nothing is sent")]
        let (in_use, let_go) = mpsc::channel();
        let _ = self.in_use.set(in_use);
        let producer = Arc::clone(&self.producer);
        drop(self);
        Owned::spawn("retire", move || {
            // It is closed once nobody has the handle: from then on the producer is this thread's alone.
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

    /// Waits until the producer has reported all that it holds, at most until `settled_by`. librdkafka tells nobody of that.
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
