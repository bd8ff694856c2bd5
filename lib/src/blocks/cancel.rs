use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

/// Maximum time that an aborting run waits for its last log messages to be written.
const LOG_TIMEOUT: Duration = Duration::from_millis(500);

/// A request to stop the run.
///
/// While blocks are streamed, the first signal asks the run to stop after the computed blocks are
/// written. A second signal ends the process, and so does a timeout of a few seconds. At other
/// times, the first signal ends the process.
#[derive(Clone, Debug)]
pub struct Cancel {
    signal: Arc<AtomicUsize>,
    at_once: Arc<AtomicBool>,
    /// Whether signals of this process are received; only then can this value end the process.
    listens: bool,
}

impl Default for Cancel {
    fn default() -> Self {
        Self { signal: Arc::default(), at_once: Arc::new(AtomicBool::new(true)), listens: false }
    }
}

impl Cancel {
    /// Listens to SIGINT and SIGTERM (not to SIGHUP, which `nohup` wants ignored).
    ///
    /// # Errors
    /// The system's error, if a handler cannot be registered.
    pub fn on_signals() -> io::Result<Self> {
        let cancel = Self { listens: true, ..Self::default() };
        for signal in [SIGINT, SIGTERM] {
            // handlers run in the order of registration: the first one ends the process if
            // `at_once` is set, and the next one sets it, so that while blocks are streamed only a
            // second signal ends the process
            let code = 128 + signal;
            let at_once = || Arc::clone(&cancel.at_once);
            signal_hook::flag::register_conditional_shutdown(signal, code, at_once())?;
            signal_hook::flag::register(signal, at_once())?;
            signal_hook::flag::register_usize(signal, Arc::clone(&cancel.signal), signal as usize)?;
        }
        Ok(cancel)
    }

    /// The signal that was received, if any.
    pub fn signal(&self) -> Option<i32> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }

    /// Requests that the run stops, as the signal with this number does.
    pub fn stop(&self, signal: i32) {
        self.signal.store(signal as usize, Ordering::Relaxed);
    }

    /// Ends the process, as a second signal does, if a first signal was received. Call this
    /// function if running tasks do not end in time. Finished tasks are in the ledger, and files
    /// are written atomically.
    pub(super) fn exit_if_signalled(&self) {
        if let (true, Some(signal)) = (self.listens, self.signal()) {
            tracing::error!("interrupted; run the same command with --resume to go on");
            super::remove_folder_of_stream();
            super::flush_stderr(LOG_TIMEOUT);
            signal_hook::low_level::exit(128 + signal);
        }
    }

    /// Until the guard is dropped, a first signal does not end the process; the caller must poll
    /// [`Cancel::signal`].
    pub(super) fn catch_signals(&self) -> SignalGuard {
        self.at_once.store(false, Ordering::SeqCst);
        SignalGuard(Arc::clone(&self.at_once))
    }
}

pub(super) struct SignalGuard(Arc<AtomicBool>);

impl Drop for SignalGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
