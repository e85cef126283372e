//! How far a conversion is: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::note;

/// The least time between two lines.
const PAUSE: Duration = Duration::from_secs(5);

pub struct Progress {
    total: u64,
    start: Instant,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    /// Work done, and when the last line was printed.
    Lines(Mutex<(u64, Instant)>),
}

impl Progress {
    pub fn new(total: u64) -> Self {
        let start = Instant::now();
        let shown = if stderr().is_terminal() {
            let bar = ProgressBar::new(total);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %  {eta} left") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(500));
            Shown::Bar(bar)
        } else {
            Shown::Lines(Mutex::new((0, start)))
        };
        Self {
            total,
            start,
            shown,
        }
    }

    pub fn add(&self, work: u64) {
        match &self.shown {
            Shown::Bar(bar) => bar.inc(work),
            Shown::Lines(state) => {
                let Ok(mut state) = state.lock() else { return };
                state.0 += work;
                if state.1.elapsed() >= PAUSE {
                    state.1 = Instant::now();
                    let percent = state.0.min(self.total) * 100 / self.total.max(1);
                    let seconds = self.start.elapsed().as_secs();
                    note(format_args!("{percent} % done after {seconds} s"));
                }
            }
        }
    }

    pub fn finish(self) {
        if let Shown::Bar(bar) = self.shown {
            bar.finish_and_clear();
        }
    }
}
