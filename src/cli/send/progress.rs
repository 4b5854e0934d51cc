//! The progress bar, on a terminal.

use std::{sync::Arc, time::Duration};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio_util::task::AbortOnDropHandle;

use super::load::Load;

const REDRAW: Duration = Duration::from_millis(200);

/// Shows a run on standard error until it is dropped. Shows nothing if that is not a terminal.
pub struct Progress {
    bar: ProgressBar,
    _drawing: Option<AbortOnDropHandle<()>>,
}

impl Progress {
    /// Begins to draw the progress of `load`.
    pub fn of(load: &Arc<Load>) -> Self {
        let total = load.schedule.total();
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        if bar.is_hidden() {
            return Self { bar, _drawing: None };
        }
        let template =
            if total.is_some() { "{bar:30} {percent:>3}%  {msg}  {eta} left" } else { "{spinner} {elapsed}  {msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let (load, drawn) = (Arc::clone(load), bar.clone());
        let drawing = tokio::spawn(async move {
            let mut acked_before = 0;
            loop {
                tokio::time::sleep(REDRAW).await;
                let Ok(tally) = load.total() else { return };
                let rate = (tally.acked - acked_before) as f64 / REDRAW.as_secs_f64();
                acked_before = tally.acked;
                let [rate, acked, retried, dropped] =
                    [rate as u64, tally.acked, tally.retried, tally.dropped].map(HumanCount);
                drawn.set_message(format!("{rate}/s  {acked} acked  {retried} retried  {dropped} dropped"));
                drawn.set_position(tally.sent());
            }
        });
        Self { bar, _drawing: Some(AbortOnDropHandle::new(drawing)) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
