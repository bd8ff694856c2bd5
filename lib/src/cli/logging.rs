//! Talk on stderr.

use std::io::{self, Write};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::time::uptime;

use crate::blocks::above_bar;

/// Starts logging: `louder` is how often `-v` was given.
pub(super) fn start(louder: u8, quiet: bool, json: bool) {
    let level = match (quiet, louder) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(|| AboveBar);
    // a second start in one process, as in tests, keeps the first
    let _ = if json {
        builder.json().flatten_event(true).with_timer(uptime()).try_init()
    } else {
        builder.with_timer(uptime()).with_target(false).try_init()
    };
}

/// Stderr, without tearing the progress bar.
struct AboveBar;

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        above_bar(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
