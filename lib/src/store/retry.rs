//! Retries of requests to a bucket or a web server: exponential backoff until a deadline.

use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The environment variable that sets [`RetryPolicy::deadline`], in seconds.
const VARIABLE: &str = "VOXLOOM_STORE_DEADLINE";

/// How long, and at which intervals, a failed request is repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    /// The time from the beginning of a request, or of an outage of the server, after which no
    /// further attempt begins.
    pub(super) deadline: Duration,
    /// The pause after the first attempt; it doubles after each further attempt, up to
    /// [`MAX_PAUSE`].
    pub(super) pause: Duration,
    /// The time without any data after which an attempt fails.
    pub(super) silence: Duration,
}

/// The number of failed attempts after which a warning is logged.
const TRIES_BEFORE_WARNING: u32 = 4;
/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(10);

impl RetryPolicy {
    /// The policy of this process. The deadline is two minutes, or the number of seconds in the
    /// environment variable `VOXLOOM_STORE_DEADLINE`.
    pub(super) fn of_process() -> Self {
        static VALUE: OnceLock<RetryPolicy> = OnceLock::new();
        *VALUE.get_or_init(|| {
            let text = std::env::var(VARIABLE).unwrap_or_default();
            let seconds = text.trim().parse::<f64>().ok().filter(|s| (0.0..1e6).contains(s));
            if seconds.is_none() && !text.is_empty() {
                tracing::warn!("{VARIABLE} is '{text}', wanted is a number of seconds; it is 120");
            }
            let deadline = Duration::from_secs_f64(seconds.unwrap_or(120.0));
            let silence = deadline.clamp(Duration::from_millis(500), Duration::from_secs(30));
            Self { deadline, pause: Duration::from_millis(100), silence }
        })
    }
}

/// The start of the present series of temporary failures of a server; `None` if the last request
/// did not fail temporarily. All requests to the server share this value, so that they wait for a
/// failing server until one common deadline, not each until its own.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Mutex<Option<Instant>>,
}

impl Outage {
    /// Records a temporary failure; returns the time since the present series of temporary failures
    /// began.
    fn fail(&self) -> Duration {
        self.lock().get_or_insert_with(Instant::now).elapsed()
    }

    fn end(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an attempt failed, with the message of the server or the network.
#[derive(Debug)]
pub(super) enum TryError {
    /// A temporary fault: the same request may succeed later.
    Passing(String),
    /// The server refuses access.
    Denied(String),
    /// The store does not offer the operation.
    Unsupported(String),
    /// Any other failure; a further attempt would fail in the same way.
    Permanent(String),
}

/// The message of an error of the store, inside an [`io::Error`] whose kind classifies it.
#[derive(Debug)]
struct StoreMessage(String);

impl fmt::Display for StoreMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreMessage {}

/// An error of this kind with a message of one sentence.
pub(super) fn error(kind: io::ErrorKind, message: impl Into<String>) -> io::Error {
    io::Error::new(kind, StoreMessage(message.into()))
}

/// Repeats `attempt` as long as it fails temporarily and the deadline has not passed. The argument
/// of `attempt` is its number, from 0. The deadline counts from the beginning of this request or of
/// the outage of the server, whichever is earlier.
///
/// * `server`: the name of the server, for messages
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] after the deadline. Without a further attempt,
/// [`io::ErrorKind::PermissionDenied`], [`io::ErrorKind::Unsupported`] or [`io::ErrorKind::Other`].
pub(super) fn repeat<T>(
    policy: RetryPolicy,
    outage: &Outage,
    server: &str,
    mut attempt: impl FnMut(u32) -> Result<T, TryError>,
) -> io::Result<T> {
    let begun = Instant::now();
    let mut tries = 0;
    loop {
        let failure = match attempt(tries) {
            Ok(result) => {
                outage.end();
                return Ok(result);
            }
            Err(failure) => failure,
        };
        tries += 1;
        match failure {
            TryError::Passing(reason) => {
                let pause = pause(policy, tries);
                let failing = outage.fail().max(begun.elapsed());
                if failing + pause > policy.deadline {
                    let message = format!(
                        "{server} gave no good answer for {:.1} s, and the last was \"{reason}\"; check \
                         that address, and run the same command again when it answers",
                        failing.as_secs_f64()
                    );
                    return Err(error(io::ErrorKind::TimedOut, message));
                }
                if tries == TRIES_BEFORE_WARNING {
                    tracing::warn!(
                        "{server} gives no good answer (\"{reason}\"); requests are repeated for {:.0} s",
                        policy.deadline.as_secs_f64()
                    );
                }
                tracing::debug!("try {tries} failed ({reason}); the next is in {pause:?}");
                std::thread::sleep(pause);
            }
            answer => {
                outage.end();
                return Err(match answer {
                    TryError::Denied(reason) => error(io::ErrorKind::PermissionDenied, reason),
                    TryError::Unsupported(reason) => error(io::ErrorKind::Unsupported, reason),
                    TryError::Permanent(reason) | TryError::Passing(reason) => {
                        error(io::ErrorKind::Other, reason)
                    }
                });
            }
        }
    }
}

/// The pause after `tries` failed attempts. It is a random time between half of the exponentially
/// growing maximum and all of it, so that many processes that failed together do not retry
/// together.
fn pause(policy: RetryPolicy, tries: u32) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let most = policy.pause.saturating_mul(1 << (tries - 1).min(16)).min(MAX_PAUSE);
    // `RandomState` is randomly seeded by the standard library
    let random = RandomState::new().hash_one(tries) as f64 / u64::MAX as f64;
    most.mul_f64(0.5 + 0.5 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: RetryPolicy = RetryPolicy {
        deadline: Duration::from_millis(200),
        pause: Duration::from_millis(1),
        silence: Duration::from_millis(100),
    };

    #[test]
    fn temporary_failures_are_repeated_and_others_are_not() {
        let mut tries = 0;
        let outcome = repeat(SHORT, &Outage::default(), "s3://b", |number| {
            tries += 1;
            if number < 3 { Err(TryError::Passing("busy".into())) } else { Ok(number) }
        });
        assert_eq!((outcome.unwrap(), tries), (3, 4));
        for (failure, kind) in [
            (TryError::Denied("no".into()), io::ErrorKind::PermissionDenied),
            (TryError::Permanent("no".into()), io::ErrorKind::Other),
            (TryError::Unsupported("no".into()), io::ErrorKind::Unsupported),
        ] {
            let mut failure = Some(failure);
            let outcome = repeat(SHORT, &Outage::default(), "s3://b", |_| {
                Err::<(), _>(failure.take().unwrap())
            });
            assert_eq!(outcome.unwrap_err().kind(), kind);
        }
    }

    #[test]
    fn a_server_that_is_gone_is_waited_for_once_and_not_for_each_request() {
        let outage = Outage::default();
        let gone = || {
            repeat(SHORT, &outage, "s3://b", |_| Err::<(), _>(TryError::Passing("refused".into())))
        };
        let begun = Instant::now();
        for _ in 0..100 {
            let message = gone().unwrap_err().to_string();
            assert!(message.contains("s3://b") && message.contains("refused"), "{message}");
        }
        assert!(begun.elapsed() < SHORT.deadline * 50, "each waited for the deadline");
        // a response ends the outage, even if it is an error
        repeat(SHORT, &outage, "s3://b", |_| Err::<(), _>(TryError::Denied("no".into())))
            .unwrap_err();
        let mut tries = 0;
        repeat(SHORT, &outage, "s3://b", |number| {
            tries += 1;
            if number < 2 { Err(TryError::Passing("busy".into())) } else { Ok(()) }
        })
        .unwrap();
        assert_eq!(tries, 3);
    }

    #[test]
    fn after_the_deadline_the_last_failure_is_told() {
        let begun = Instant::now();
        let outcome = repeat(SHORT, &Outage::default(), "s3://b", |_| {
            Err::<(), _>(TryError::Passing("HTTP 503".into()))
        });
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("HTTP 503"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}
