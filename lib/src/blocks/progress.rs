use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How progress is shown, on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// A bar on a terminal, log lines elsewhere.
    #[default]
    Auto,
    /// A bar.
    Bar,
    /// A log line every 10 s.
    Line,
    /// A line of JSON every 2 s.
    Json,
    /// Nothing.
    None,
}

/// The progress bar of this process, if one is shown. All log messages must be written above it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Hides the progress bar while `write` writes to stderr, so that the text appears above the bar.
pub fn above_bar<T>(write: impl FnOnce() -> T) -> T {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Shows the progress of one stream of tasks.
pub(super) struct ProgressMeter {
    progress: Progress,
    bar: Option<ProgressBar>,
    total: usize,
    before: usize,
    started: Instant,
    shown: Instant,
}

impl ProgressMeter {
    /// A meter for `total` tasks, of which `before` are already done.
    pub(super) fn new(progress: Progress, total: usize, before: usize) -> Self {
        let progress = match progress {
            Progress::Auto if std::io::stderr().is_terminal() => Progress::Bar,
            Progress::Auto => Progress::Line,
            other => other,
        };
        let bar = (progress == Progress::Bar).then(|| {
            let bar = ProgressBar::new(total as u64);
            if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} blocks {msg}") {
                bar.set_style(style);
            }
            *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
            bar
        });
        let now = Instant::now();
        Self { progress, bar, total, before, started: now, shown: now }
    }

    /// The number of tasks that were done before this run.
    pub(super) fn before(&self) -> usize {
        self.before
    }

    /// Shows the progress if the interval since it was last shown has passed. Call it often.
    pub(super) fn tick(&mut self, done: usize) {
        let every = match self.progress {
            Progress::Json => Duration::from_secs(2),
            Progress::Bar => Duration::from_millis(100),
            _ => Duration::from_secs(10),
        };
        if self.shown.elapsed() >= every {
            self.shown = Instant::now();
            self.show(done);
        }
    }

    /// Shows the final state; for `Line`, only if earlier lines were shown.
    pub(super) fn end(self, done: usize) {
        if self.progress != Progress::Line || self.shown > self.started {
            self.show(done);
        }
        if let Some(bar) = &self.bar {
            *BAR.lock().unwrap_or_else(PoisonError::into_inner) = None;
            bar.finish_and_clear();
        }
    }

    fn show(&self, done: usize) {
        let total = self.total;
        let (rate, left) = rate(done - self.before, total - done, self.started.elapsed());
        let left_text = left.map_or_else(|| "unknown time".to_owned(), duration);
        match self.progress {
            Progress::Bar => {
                if let Some(bar) = &self.bar {
                    bar.set_message(format!("{rate:.2}/s, {left_text} left"));
                    bar.set_position(done as u64);
                }
            }
            Progress::Line => {
                tracing::info!("{done} of {total} blocks, {rate:.2}/s, {left_text} left");
            }
            Progress::Json => {
                let progress = serde_json::json!({
                    "done": done, "total": total, "rate": rate, "seconds_left": left,
                });
                super::write_stderr(&format!("{}\n", serde_json::json!({ "progress": progress })));
            }
            Progress::Auto | Progress::None => {}
        }
    }
}

/// Tasks per second, and the estimated remaining seconds.
fn rate(done: usize, left: usize, elapsed: Duration) -> (f64, Option<f64>) {
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-9);
    (rate, (done > 0).then(|| left as f64 / rate))
}

fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..120 => format!("{s} s"),
        120..7200 => format!("{} min", (s + 30) / 60),
        _ => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_rate_of_this_run() {
        assert_eq!(rate(10, 30, Duration::from_secs(5)), (2.0, Some(15.0)));
        assert_eq!(rate(0, 30, Duration::from_secs(5)), (0.0, None));
    }

    #[test]
    fn times_are_told_in_the_unit_that_fits() {
        let times = [3.2, 119.0, 600.0, 9000.0].map(duration);
        assert_eq!(times, ["3 s", "119 s", "10 min", "2 h 30 min"]);
    }
}
