//! Logs messages to stderr without ever blocking the program.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::time::uptime;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::blocks::write_stderr;

/// Starts logging; `louder` is the number of times that `-v` was given.
pub(super) fn start(louder: u8, quiet: bool, json: bool) {
    let level = match (quiet, louder) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(|| StderrWriter);
    // a second start in one process, as in tests, keeps the first logger
    let _ = if json {
        let json = builder.json().flatten_event(true).with_timer(uptime());
        json.finish().with(OncePerMessage::default()).try_init()
    } else {
        let plain = builder.with_timer(uptime()).with_target(false);
        plain.finish().with(OncePerMessage::default()).try_init()
    };
}

/// Maximum number of messages that are remembered; after that, repetitions are logged too.
const MAX_REMEMBERED: usize = 10_000;

/// Logs each message of level INFO or more severe only once, because a program can open a volume
/// several times and would repeat its warnings. Less severe messages are logged only if they come
/// from this project, each time that they occur.
#[derive(Default)]
struct OncePerMessage(Mutex<BTreeSet<String>>);

impl<S: Subscriber> Layer<S> for OncePerMessage {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if *event.metadata().level() > Level::INFO {
            // the network libraries log so much that other messages would be hard to find
            return event.metadata().target().starts_with("voxloom");
        }
        let mut text = EventText(event.metadata().level().to_string());
        event.record(&mut text);
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.len() >= MAX_REMEMBERED || logged.insert(text.0)
    }
}

/// The text of all fields of an event.
struct EventText(String);

impl Visit for EventText {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}"); // writing to a String cannot fail
    }
}

/// A writer to stderr that does not interfere with the progress bar. Writing never returns an
/// error, because `tracing` would report the error on stderr, and panic if that report fails.
struct StderrWriter;

impl Write for StderrWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_stderr(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
