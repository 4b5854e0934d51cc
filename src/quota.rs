//! Limits that are taken from and given back: what is held can never be more than was configured.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// An amount of something (requests, bytes) of which at most `max` is taken at any time.
#[derive(Debug)]
pub struct Quota {
    taken: AtomicUsize,
    max: usize,
}

/// A part of a quota, given back on drop.
#[derive(Debug)]
pub struct Share {
    quota: Arc<Quota>,
    amount: usize,
}

impl Quota {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max })
    }

    /// Takes `amount`, or nothing when that much is not left.
    pub fn take(self: &Arc<Self>, amount: usize) -> Option<Share> {
        self.reserve(amount).then(|| Share { quota: Arc::clone(self), amount })
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn max(&self) -> usize {
        self.max
    }

    fn reserve(&self, amount: usize) -> bool {
        let add = |taken: usize| taken.checked_add(amount).filter(|sum| *sum <= self.max);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }
}

impl Share {
    /// Makes the share `amount` large; false, and as it was, when the quota has not that much left.
    pub fn resize(&mut self, amount: usize) -> bool {
        if amount > self.amount {
            if !self.quota.reserve(amount - self.amount) {
                return false;
            }
        } else {
            self.quota.taken.fetch_sub(self.amount - amount, Ordering::Relaxed);
        }
        self.amount = amount;
        true
    }

    pub fn amount(&self) -> usize {
        self.amount
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.quota.taken.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_stays_within_max_and_comes_back() {
        let quota = Quota::new(10);
        let mut six = quota.take(6).unwrap();
        assert!(quota.take(5).is_none());
        assert!(quota.take(usize::MAX).is_none());
        let four = quota.take(4).unwrap();
        assert!(!six.resize(7));
        assert!(six.resize(2));
        assert_eq!(quota.taken(), 6);
        drop(four);
        assert!(six.resize(10));
        drop(six);
        assert_eq!(quota.taken(), 0);
    }
}
