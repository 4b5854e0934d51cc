//! Brokers that die, stand still, come back.

use std::time::{Duration, Instant};

use crate::{
    event::Feed,
    load::Plan,
    rig::{Case, Trial},
    verdict::{Expect, Outcome},
};

pub fn cases() -> Vec<Case> {
    vec![Case::fast("row_01_leader_killed", leader_killed)]
}

/// A sender that waits longer than a failover takes.
fn patient() -> Plan {
    Plan { timeout: Duration::from_secs(20), ..Plan::default() }
}

pub fn leader_killed(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let load = rig.load();
    let leader = rig.leaders(Feed::Journey)[0];
    rig.kafka.broker(leader).kill();
    rig.wait_led_without(leader);
    let healed = Instant::now();
    load.wait_acked(200);
    // It comes back under the load, which must not see it.
    rig.kafka.broker(leader).start();
    rig.kafka.wait_ready();
    rig.wait_in_sync();
    rig.verdict(load, &Expect::held().healed(healed))
}
