//! Ready when the last latch is dropped.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::IntGauge;

/// The reasons why the bridge is not ready; without a reason, the bridge is ready.
pub struct Readiness {
    reasons: Mutex<Reasons>,
    /// 1 when ready, else 0.
    gauge: IntGauge,
}

#[derive(Default)]
struct Reasons {
    /// The reasons, sorted by their part.
    by_part: BTreeMap<(&'static str, u64), String>,
    next: u64,
}

/// One reason, which holds until this value is dropped.
#[must_use = "the reason is gone once this is dropped"]
pub struct Latch {
    readiness: Arc<Readiness>,
    place: (&'static str, u64),
}

impl Readiness {
    /// Has no reason at first. `gauge` follows each change: 1 when ready, else 0.
    pub fn new(gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self { reasons: Mutex::default(), gauge })
    }

    /// Adds the reason `why`, in the name of `part`, until the latch is dropped.
    pub fn wait_for(self: &Arc<Self>, part: &'static str, why: impl Into<String>) -> Latch {
        let place = self.change(|reasons| {
            let place = (part, reasons.next);
            reasons.next += 1;
            reasons.by_part.insert(place, why.into());
            place
        });
        Latch { readiness: Arc::clone(self), place }
    }

    /// The reasons, each behind the name of its part, in the order of the parts.
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.by_part.iter().map(|((part, _), why)| format!("{part}: {why}")).collect()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Reasons) -> T) -> T {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut reasons);
        self.gauge.set(i64::from(reasons.by_part.is_empty()));
        changed
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.readiness.change(|reasons| reasons.by_part.remove(&self.place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_what_no_latch_holds_back() {
        let gauge = IntGauge::new("ready", "test").unwrap();
        let readiness = Readiness::new(gauge.clone());
        let (start, topics) =
            (readiness.wait_for("start", "it starts"), readiness.wait_for("topics", "one is missing"));
        assert_eq!((readiness.reasons().len(), gauge.get()), (2, 0));
        drop(start);
        assert_eq!((readiness.reasons(), gauge.get()), (vec!["topics: one is missing".to_owned()], 0));
        let more = readiness.wait_for("topics", "two are missing");
        drop(topics);
        assert_eq!((readiness.reasons(), gauge.get()), (vec!["topics: two are missing".to_owned()], 0));
        drop(more);
        assert_eq!((readiness.reasons().len(), gauge.get()), (0, 1));
    }
}
