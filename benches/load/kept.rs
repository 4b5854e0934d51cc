//! A load over kept connections.

use std::time::Instant;

use super::{
    CONNECTIONS,
    figures::Figures,
    site::{Site, Target},
};

/// The flag of `causeway send` with which each connection posts its next event when the last one is answered.
pub const CLOSED: &str = "--closed-loop";

pub struct Kept {
    connections: String,
    source: Vec<String>,
    pace: String,
    seconds: f64,
}

impl Kept {
    /// A load of all feeds mixed. `pace` is a flag of `causeway send`.
    pub fn generated(connections: usize, pace: &str, seconds: f64) -> Self {
        Self::new(connections, &["--generate"], pace, seconds)
    }

    /// A load of the events that `source` names: arguments of `causeway send`.
    pub fn new(connections: usize, source: &[&str], pace: &str, seconds: f64) -> Self {
        let source = source.iter().map(|&flag| flag.to_owned()).collect();
        Self { connections: connections.to_string(), source, pace: pace.to_owned(), seconds }
    }

    /// Measures the load without the opening of its connections, whose CPU time is measured just before.
    pub fn measure(&self, site: &Site, target: &Target) -> Figures {
        let begun = Instant::now();
        let opening = site.post(target, &self.flags(&[CLOSED, &format!("--count={}", self.connections)]));
        // An event that is due while connections open waits for them, so this time is left out.
        let warm_up = 1.25 * begun.elapsed().as_secs_f64() + 0.5;
        let seconds = format!("--seconds={}", self.seconds + warm_up);
        site.post_after(warm_up, target, &self.flags(&[&self.pace, &seconds])).without(&opening)
    }

    fn flags<'a>(&'a self, load: &[&'a str]) -> Vec<&'a str> {
        let flags = self.source.iter().map(String::as_str).chain(load.iter().copied());
        flags.chain(["--connections", self.connections.as_str()]).collect()
    }
}

/// Posts `events` events before anything is measured.
pub fn warm(site: &Site, target: &Target, events: u64) {
    let (connections, count) = (CONNECTIONS.to_string(), events.to_string());
    site.post(target, &["--generate", CLOSED, "--connections", &connections, "--count", &count]);
}
