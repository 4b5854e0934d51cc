//! Clusters for those who stop and break them: one holder at a time.

use std::{
    ops::Deref,
    sync::{Condvar, Mutex},
};

use super::kafka::Kafka;

/// Clusters that are started when somebody wants one, and used again.
pub struct Pool {
    start: fn() -> Kafka,
    /// How many there may be at once: each has its share of memory and start-up time.
    max: usize,
    /// Those that nobody holds, and how many were started.
    free: Mutex<(Vec<Kafka>, usize)>,
    given_back: Condvar,
}

/// A Kafka that its holder alone uses. Given back when it is dropped.
pub struct Lease {
    kafka: Option<Kafka>,
    pool: Option<&'static Pool>,
}

impl Lease {
    /// Of a cluster like no other: it ends with its holder.
    pub fn own(kafka: Kafka) -> Self {
        Self { kafka: Some(kafka), pool: None }
    }
}

impl Pool {
    pub const fn new(max: usize, start: fn() -> Kafka) -> Self {
        Self { start, max, free: Mutex::new((Vec::new(), 0)), given_back: Condvar::new() }
    }

    /// Waits until one is free.
    pub fn lease(&'static self) -> Lease {
        let wanted = |(free, started): &mut (Vec<Kafka>, usize)| free.is_empty() && *started >= self.max;
        let mut free = self.given_back.wait_while(self.free.lock().unwrap(), wanted).unwrap();
        if let Some(kafka) = free.0.pop() {
            return Lease { kafka: Some(kafka), pool: Some(self) };
        }
        free.1 += 1;
        drop(free);
        // Counted as started: a start that fails gives its place back.
        let mut lease = Lease { kafka: None, pool: Some(self) };
        lease.kafka = Some((self.start)());
        lease
    }
}

impl Deref for Lease {
    type Target = Kafka;

    fn deref(&self) -> &Kafka {
        self.kafka.as_ref().unwrap()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(pool) = self.pool else { return };
        // After a failed test nobody knows what state it is in.
        let kafka = self.kafka.take().filter(|_| !std::thread::panicking());
        kafka.iter().for_each(Kafka::restore);
        let mut free = pool.free.lock().unwrap();
        match kafka {
            Some(kafka) => free.0.push(kafka),
            None => free.1 -= 1,
        }
        pool.given_back.notify_one();
    }
}
