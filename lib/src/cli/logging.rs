//! Talk on stderr, which nobody waits for.

use std::io::{self, Write};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::time::uptime;

use crate::blocks::say;

/// Starts logging: `louder` is how often `-v` was given.
pub(super) fn start(louder: u8, quiet: bool, json: bool) {
    let level = match (quiet, louder) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(|| Talk);
    // a second start in one process, as in tests, keeps the first
    let _ = if json {
        builder.json().flatten_event(true).with_timer(uptime()).try_init()
    } else {
        builder.with_timer(uptime()).with_target(false).try_init()
    };
}

/// Stderr, without tearing the progress bar. It never fails, since `tracing` would complain of that on
/// stderr, and panic where it cannot.
struct Talk;

impl Write for Talk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        say(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
