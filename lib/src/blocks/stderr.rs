//! Output on stderr, written by a separate thread so that workers never wait for the reader.
//!
//! If a terminal is closed, a pipe is full and not read, or a disk is full, only log lines are
//! lost.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::above_bar;

/// Maximum number of queued lines.
const MAX_QUEUED: usize = 256;
/// Maximum length of a line, in bytes.
const MAX_LINE: usize = 4000;
/// Maximum length of a string within a line of JSON, in bytes.
const MAX_STRING: usize = 1500;
/// Interval at which a full queue is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

static WRITER: OnceLock<Option<StderrWriter>> = OnceLock::new();

struct StderrWriter {
    queue: SyncSender<Message>,
    lost: AtomicUsize,
}

enum Message {
    Line(Vec<u8>),
    /// A request for a reply after all earlier messages of the queue are written.
    Mark(Sender<()>),
}

/// Writes one or more complete lines to stderr without blocking. If the queue is full, the lines
/// are dropped, and a later message reports how many calls were affected.
pub fn write_stderr(lines: &str) {
    let lines: String = lines.split_inclusive('\n').map(bounded).collect();
    let Some(writer) = WRITER.get_or_init(StderrWriter::start) else {
        // no thread could be started; an error of stderr cannot be reported anywhere
        let _ = io::stderr().write_all(lines.as_bytes());
        return;
    };
    if let Err(TrySendError::Full(_)) = writer.queue.try_send(Message::Line(lines.into_bytes())) {
        writer.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until all queued lines are written, but no longer than `timeout`.
pub fn flush_stderr(timeout: Duration) {
    let Some(Some(writer)) = WRITER.get() else { return };
    let end = Instant::now() + timeout;
    let left = || end.saturating_duration_since(Instant::now());
    let (answer, answered) = channel();
    let mut flush = Message::Mark(answer);
    while let Err(TrySendError::Full(back)) = writer.queue.try_send(flush) {
        if left().is_zero() {
            return;
        }
        thread::sleep(POLL_INTERVAL.min(left()));
        flush = back;
    }
    // a missing answer means that `timeout` has run out
    let _ = answered.recv_timeout(left());
}

impl StderrWriter {
    fn start() -> Option<Self> {
        let (queue, lines) = sync_channel(MAX_QUEUED);
        thread::Builder::new().name("talk".to_owned()).spawn(move || write_all(&lines)).ok()?;
        Some(Self { queue, lost: AtomicUsize::new(0) })
    }
}

/// Writes queued lines until the process ends.
fn write_all(messages: &Receiver<Message>) {
    let write = |bytes: &[u8]| {
        // an error of stderr cannot be reported anywhere
        let _ = above_bar(|| io::stderr().write_all(bytes));
    };
    while let Ok(messages) = messages.recv() {
        match messages {
            Message::Line(line) => write(&line),
            Message::Mark(answer) => {
                // the caller may have stopped waiting
                let _ = answer.send(());
            }
        }
        let writer = WRITER.get().and_then(Option::as_ref);
        let lost = writer.map_or(0, |writer| writer.lost.swap(0, Ordering::Relaxed));
        if lost > 0 {
            write(format!("({lost} lines were lost, as nobody read them)\n").as_bytes());
        }
    }
}

/// Shortens a line of more than [`MAX_LINE`] bytes. In a line of JSON, only strings are shortened,
/// so that it remains valid JSON.
fn bounded(line: &str) -> String {
    if line.len() <= MAX_LINE {
        return line.to_owned();
    }
    if line.starts_with('{')
        && let Ok(mut value) = serde_json::from_str(line)
    {
        shorten_texts(&mut value);
        return format!("{value}\n");
    }
    let end = if line.ends_with('\n') { "\n" } else { "" };
    format!("{}{end}", shorten(line.trim_end_matches('\n'), MAX_LINE))
}

fn shorten_texts(value: &mut Value) {
    match value {
        Value::String(text) => *text = shorten(text, MAX_STRING).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(shorten_texts),
        Value::Object(values) => values.values_mut().for_each(shorten_texts),
        _ => {}
    }
}

/// Shortens a text of more than `most` bytes by omitting its middle, so that its subject at the
/// beginning and the suggested remedy at its end remain.
pub fn shorten(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return text.into();
    }
    let boundary = |mut at: usize, step: fn(usize) -> usize| {
        while !text.is_char_boundary(at) {
            at = step(at);
        }
        at
    };
    let head = boundary(most / 3 * 2, |at| at - 1);
    let tail = boundary(text.len() - most / 3, |at| at + 1);
    format!("{} ... ({} bytes left out) ... {}", &text[..head], tail - head, &text[tail..]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_head_and_its_end() {
        assert_eq!(shorten("short", 5), "short");
        let long = format!("a.txt: {} is no number; correct it", "é".repeat(5000));
        let short = shorten(&long, 300);
        assert!(short.starts_with("a.txt: é") && short.ends_with("correct it"), "{short}");
        assert!(short.len() < 400 && short.contains("bytes left out"), "{short}");
        for most in 3..40 {
            assert!(shorten(&long, most).len() < most + 60, "cut within a letter");
        }
    }

    #[test]
    fn a_line_of_json_stays_json() {
        let line = serde_json::json!({"message": "x".repeat(1 << 20), "level": "INFO", "n": [1]});
        let short = bounded(&format!("{line}\n"));
        let value: Value = serde_json::from_str(&short).unwrap();
        assert!(short.len() < MAX_LINE && short.ends_with('\n'));
        assert_eq!((value["level"].as_str(), &value["n"]), (Some("INFO"), &serde_json::json!([1])));
        let text = bounded(&format!("{{ no json {}\n", "y".repeat(1 << 20)));
        assert!(text.len() < MAX_LINE + 60 && text.ends_with('\n'));
    }
}
