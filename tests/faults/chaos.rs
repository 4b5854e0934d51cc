//! Faults in an order and at moments that no row names. `CAUSEWAY_FAULTS_SEED` gives a run's order again, not its moments.

use std::{
    env,
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    event::Feed,
    load::Plan,
    rig::{Case, Rig, Trial},
    verdict::{Copies, Expect, Outcome},
};

pub fn cases() -> Vec<Case> {
    vec![Case::slow("faults_in_a_random_order", random_order)]
}

const LASTS: Duration = Duration::from_secs(60);

fn random_order(trial: &Trial) -> Outcome {
    let mut dice = Dice::rolled();
    let rig = trial.rig(Plan::default(), &[]);
    let load = rig.load();
    let started = Instant::now();
    while started.elapsed() < LASTS {
        fault(&rig, &mut dice);
        sleep(Duration::from_millis(dice.up_to(1500)));
    }
    rig.kafka.restore();
    rig.wait_in_sync();
    rig.wait_led_without(0);
    let healed = Instant::now();
    let expect = Expect { broken: true, ..Expect::held().copies(Copies::Redelivered).healed(healed) };
    rig.verdict(load, &expect)
}

/// One at a time, or what was broken before is still so: a wire heals only now and then.
pub fn fault(rig: &Rig, dice: &mut Dice) {
    let at = dice.up_to(3) as usize;
    let (broker, wire) = (&rig.kafka.brokers()[at], &rig.kafka.proxies()[at]);
    let pause = Duration::from_millis(200 + dice.up_to(4000));
    match dice.up_to(10) {
        0 => {
            broker.pause();
            sleep(pause);
            broker.resume();
        }
        1 => {
            broker.kill();
            sleep(pause);
            broker.start();
            rig.kafka.wait_ready();
        }
        2 => {
            wire.change(|wire| wire.cut = true);
            sleep(pause);
            wire.heal();
        }
        3 => wire.change(|wire| wire.down.silent = true),
        4 => wire.change(|wire| wire.up.silent = true),
        5 => wire.break_requests(3),
        6 => wire.change(|wire| wire.up.latency = pause / 8),
        7 => wire.reset(),
        8 => {
            let topic = rig.topic(Feed::ALL[dice.up_to(5) as usize]);
            rig.kafka.alter_topic_config(&topic, &[("min.insync.replicas", "3")]);
            sleep(pause);
            rig.kafka.alter_topic_config(&topic, &[("min.insync.replicas", "2")]);
        }
        _ => rig.each_wire(crate::support::proxy::Proxy::heal),
    }
}

/// xorshift64: what comes out depends on the seed alone.
pub struct Dice(u64);

impl Dice {
    /// As `CAUSEWAY_FAULTS_SEED` says, or as nobody knows before.
    pub fn rolled() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let seed = env::var("CAUSEWAY_FAULTS_SEED").map_or(now, |seed| seed.parse().expect("a number"));
        eprintln!("    CAUSEWAY_FAULTS_SEED={seed}");
        Self(seed.max(1))
    }

    pub fn up_to(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}
