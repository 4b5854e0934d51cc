//! The events committed of late, in a ring with an index. An idle bridge pays nothing for the index.

use std::{collections::VecDeque, iter::successors, mem};

use super::Key;

/// The last `capacity` committed events.
pub(super) struct Remembered {
    /// In the order of their commits. An event's number is the count of events remembered before it, cut to 32 bits.
    committed: VecDeque<Committed>,
    /// The number of the first event in `committed`.
    first: u32,
    /// A hash index: the id's last bits -> the number of the newest event; older events with the same bits are chained
    /// through `before`. Entries are never removed: a stale number leads to no event, or to one whose id is then
    /// compared. The index grows by leaves, each made when first needed.
    latest: Vec<Option<Box<Leaf>>>,
}

type Leaf = [u32; LEAF];
const LEAF: usize = 1024;

/// The most events compared for one id. Usually two or three share the same bits; if one id came with more bodies, only
/// the newest are searched.
const LOOKED_AT_MAX: usize = 256;

#[derive(Clone, Copy)]
pub(super) struct Committed {
    pub(super) key: Key,
    pub(super) topic: u16,
    pub(super) partition: i32,
    /// -1 where the broker told none.
    pub(super) offset: i64,
    /// The time of the commit, in seconds since the window's epoch.
    pub(super) at: u32,
    /// The number of the next older event with the same last bits of the id; any stale number where there is none.
    before: u32,
}

/// The memory of one committed event in bytes: its entry, and its part of `latest`, which has fewer than two places for
/// an event.
pub(super) const ENTRY_BYTES: usize = size_of::<Committed>() + 2 * size_of::<u32>();

impl Committed {
    pub(super) fn new(key: Key, topic: u16, partition: i32, offset: i64, at: u32) -> Self {
        Self { key, topic, partition, offset, at, before: 0 }
    }
}

impl Remembered {
    pub(super) fn new(capacity: usize) -> Self {
        let leaves = capacity.next_power_of_two().div_ceil(LEAF);
        Self { committed: VecDeque::with_capacity(capacity), first: 0, latest: vec![None; leaves] }
    }

    pub(super) fn len(&self) -> usize {
        self.committed.len()
    }

    pub(super) fn oldest(&self) -> Option<&Committed> {
        self.committed.front()
    }

    /// The remembered events with the key's event id, newest first. One with another body is another event, by the
    /// rules.
    pub(super) fn with_id(&self, key: &Key) -> impl Iterator<Item = &Committed> {
        let (leaf, place) = self.place(key);
        let leaf = self.latest.get(leaf).and_then(|leaf| leaf.as_deref());
        let latest = leaf.and_then(|leaf| self.at(*leaf.get(place)?));
        // Each number must be lower than the last: after an overflow, a stale number leads nowhere instead of back.
        let known = successors(latest, |(number, known)| self.at(known.before).filter(|(before, _)| before < number));
        known.map(|(_, known)| known).take(LOOKED_AT_MAX).filter(|known| known.key.same_id(key))
    }

    pub(super) fn push(&mut self, mut committed: Committed) {
        let number = self.first.wrapping_add(self.committed.len() as u32);
        let (leaf, place) = self.place(&committed.key);
        let nobody = self.first.wrapping_sub(1);
        let leaf = self.latest.get_mut(leaf).map(|leaf| leaf.get_or_insert_with(|| Box::new([nobody; LEAF])));
        let Some(latest) = leaf.and_then(|leaf| leaf.get_mut(place)) else { return };
        committed.before = mem::replace(latest, number);
        self.committed.push_back(committed);
    }

    pub(super) fn forget_oldest(&mut self) {
        if self.committed.pop_front().is_some() {
            self.first = self.first.wrapping_add(1);
        }
    }

    /// The position of the key's id: the leaf in `latest`, and the place in that leaf.
    fn place(&self, key: &Key) -> (usize, usize) {
        let place = key.id as usize & (self.latest.len() * LEAF - 1);
        (place / LEAF, place % LEAF)
    }

    /// The event with this number, and its distance from the first.
    fn at(&self, number: u32) -> Option<(usize, &Committed)> {
        let at = number.wrapping_sub(self.first) as usize;
        Some((at, self.committed.get(at)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shares_a_place_is_found_and_forgotten_where_numbers_begin_anew_too() {
        let mut remembered = Remembered::new(5);
        remembered.first = u32::MAX - 100;
        let key = |number: u64| Key { lane: 0, id: (number % 3 + 1) * LEAF as u64 - 1, body: [number, 0] };
        let known = |remembered: &Remembered, number| {
            let key = key(number);
            let same = remembered.with_id(&key).filter(|known| known.key == key);
            same.map(|known| known.offset).collect::<Vec<_>>()
        };
        for number in 0..300 {
            if remembered.len() == 5 {
                remembered.forget_oldest();
            }
            remembered.push(Committed::new(key(number), 0, 0, number as i64, 0));
            for other in 0..=number + 5 {
                let expected =
                    if (number.saturating_sub(4)..=number).contains(&other) { vec![other as i64] } else { vec![] };
                assert_eq!(known(&remembered, other), expected, "{other} of {number}");
            }
        }
        assert!(remembered.first < 200, "numbers have begun anew");
    }

    #[test]
    fn no_more_is_looked_at_than_there_should_be() {
        let mut remembered = Remembered::new(1000);
        let key = |number: u64| Key { lane: 0, id: 7, body: [number, 0] };
        (0..1000).for_each(|number| remembered.push(Committed::new(key(number), 0, 0, 0, 0)));
        assert_eq!(remembered.with_id(&key(0)).count(), LOOKED_AT_MAX);
        assert_eq!(remembered.with_id(&key(0)).next().map(|known| known.key), Some(key(999)));
    }
}
