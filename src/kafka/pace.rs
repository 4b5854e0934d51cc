//! The thread that opens all gates and takes all delivery reports.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{
    lanes::Lanes,
    patience::be_patient,
    thread::{Owned, Stop},
};

/// The time between two looks at the gates and the reports while records are under way. A wake-up for each report would
/// cost more than all the work on it.
const BEAT: Duration = Duration::from_millis(1);

/// The time between two looks while nothing is under way: librdkafka's other events still need polling.
const IDLE: Duration = Duration::from_millis(100);

/// Starts the thread. Its work begins when it receives the lanes, whose gates need the thread first.
pub(super) fn start(lanes: mpsc::Receiver<Arc<Lanes>>, stop: Arc<Stop>) -> Owned {
    Owned::spawn("pace", move || {
        be_patient();
        let Ok(lanes) = lanes.recv() else { return };
        while !stop.is_told() {
            let now = Instant::now();
            for lane in lanes.iter() {
                lane.open_if_due(now);
                lane.take_reports();
            }
            // A record that comes after this look wakes the thread: it is counted first (`Lane::begin`), and a thread
            // that was unparked before it parks does not sleep.
            if lanes.outstanding() == 0 {
                thread::park_timeout(IDLE);
            } else {
                thread::sleep(BEAT);
            }
        }
    })
}
