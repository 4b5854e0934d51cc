//! Limits whose amounts are taken and given back: never more is held than was configured.

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

/// The amount that one of those who share a quota holds.
#[derive(Debug, Default)]
pub struct Account(AtomicUsize);

/// A part of a quota; its drop gives it back.
#[derive(Debug)]
pub struct Share {
    quota: Arc<Quota>,
    amount: usize,
    account: Option<Arc<Account>>,
}

/// An account may hold at most this many times the amount that is still free. Alone it gets 8/9 of the quota. The more
/// accounts are stuck, the less each of them holds, and some is always left for one that is not stuck.
const FREE_TIMES: usize = 8;

impl Quota {
    /// A quota of `max`, with nothing taken.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max })
    }

    /// Takes `amount`, or nothing when so much is not left.
    pub fn take(self: &Arc<Self>, amount: usize) -> Option<Share> {
        self.reserve(amount).then(|| Share { quota: Arc::clone(self), amount, account: None })
    }

    /// The amount taken at present.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The largest amount that can be taken.
    pub fn max(&self) -> usize {
        self.max
    }

    fn reserve(&self, amount: usize) -> bool {
        let add = |taken: usize| taken.checked_add(amount).filter(|sum| *sum <= self.max);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    fn give_back(&self, amount: usize) {
        self.taken.fetch_sub(amount, Ordering::Relaxed);
    }
}

impl Share {
    /// Changes the share to `amount`. False, with no change, when the quota has not so much left.
    pub fn resize(&mut self, amount: usize) -> bool {
        if amount > self.amount {
            if !self.quota.reserve(amount - self.amount) {
                return false;
            }
        } else {
            self.quota.give_back(self.amount - amount);
        }
        self.amount = amount;
        true
    }

    /// Changes the share to `amount` and charges it to `account`. False, with no change, when that exceeds the
    /// account's fair part.
    pub fn charge(&mut self, account: &Arc<Account>, amount: usize) -> bool {
        let before = self.amount;
        if !self.resize(amount) {
            return false;
        }
        let free = self.quota.max.saturating_sub(self.quota.taken());
        let mine = account.0.fetch_add(amount, Ordering::Relaxed) + amount;
        if mine > free.saturating_mul(FREE_TIMES) {
            account.0.fetch_sub(amount, Ordering::Relaxed);
            self.resize(before);
            return false;
        }
        self.account = Some(Arc::clone(account));
        true
    }

    /// The amount of this share.
    pub fn amount(&self) -> usize {
        self.amount
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(Account(taken)) = self.account.as_deref() {
            taken.fetch_sub(self.amount, Ordering::Relaxed);
        }
        self.quota.give_back(self.amount);
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

    #[test]
    fn who_is_stuck_leaves_something_for_the_others() {
        let quota = Quota::new(9000);
        let fill = |account: &Arc<Account>| {
            let one = || quota.take(1).and_then(|mut share| share.charge(account, 10).then_some(share));
            std::iter::from_fn(one).collect::<Vec<_>>()
        };
        let (stuck, also_stuck, well) = (Arc::default(), Arc::default(), Arc::default());
        let first = fill(&stuck);
        assert_eq!(first.len(), 800);
        let second = fill(&also_stuck);
        assert!((80..100).contains(&second.len()), "{}", second.len());
        assert!(!fill(&well).is_empty());
        drop((first, second));
        assert_eq!(quota.taken(), 0);
        assert_eq!(fill(&stuck).len(), 800);
    }
}
