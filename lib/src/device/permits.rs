use std::cell::{Cell, RefCell};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A counting semaphore that limits the number of threads that compute at the same time.
///
/// A thread that computes holds a permit; [`waiting`] releases it while the thread waits for a
/// file. There may therefore be more threads than permits, but never more computing threads than
/// permits.
#[derive(Debug)]
pub struct Permits {
    free: Mutex<usize>,
    all: usize,
    changed: Condvar,
}

thread_local! {
    /// The semaphore of which this thread holds a permit while it computes.
    static THREAD_PERMITS: RefCell<Option<Arc<Permits>>> = const { RefCell::new(None) };
    /// Whether this thread has taken its permit itself. For a thread of a pool, the permit was
    /// taken by the thread that called [`Permits::with`] for the pool.
    static HAS_TAKEN: Cell<bool> = const { Cell::new(false) };
}

impl Permits {
    /// A semaphore with `threads` permits, at least one.
    pub fn new(threads: usize) -> Arc<Self> {
        let all = threads.max(1);
        Arc::new(Self { free: Mutex::new(all), all, changed: Condvar::new() })
    }

    /// Waits for `count` permits and runs `work` with them: one for this thread, the others for the
    /// threads of its pool, which have [joined](Self::join). `count` is clamped to the total number
    /// of permits. A thread that already holds a permit does not wait for a second one, because
    /// threads that wait for each other would deadlock.
    pub fn with<T>(self: &Arc<Self>, count: usize, work: impl FnOnce() -> T) -> T {
        let is_ours = THREAD_PERMITS
            .with_borrow(|own| own.as_ref().is_some_and(|own| Arc::ptr_eq(own, self)));
        let taken = HAS_TAKEN.replace(true);
        let count = count.clamp(1, self.all) - usize::from(taken && is_ours);
        self.take(count);
        let before = THREAD_PERMITS.replace(Some(Arc::clone(self)));
        // the permits are also returned if `work` panics
        let _giving_back = ReturnPermits { permits: self, count, before, taken };
        work()
    }

    /// The semaphore of which the calling thread holds a permit.
    pub fn of_thread() -> Option<Arc<Self>> {
        THREAD_PERMITS.with_borrow(Clone::clone)
    }

    /// Registers the calling pool thread, so that it releases one of its pool's permits while it
    /// waits.
    pub fn join(self: &Arc<Self>) {
        THREAD_PERMITS.set(Some(Arc::clone(self)));
    }

    fn take(&self, count: usize) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < count {
            free = self.changed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= count;
    }

    fn give(&self, count: usize) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += count;
        self.changed.notify_all();
    }
}

struct ReturnPermits<'a> {
    permits: &'a Permits,
    count: usize,
    before: Option<Arc<Permits>>,
    taken: bool,
}

impl Drop for ReturnPermits<'_> {
    fn drop(&mut self) {
        THREAD_PERMITS.set(self.before.take());
        HAS_TAKEN.set(self.taken);
        self.permits.give(self.count);
    }
}

/// Reacquires a permit when dropped.
struct ReacquirePermit(Arc<Permits>, bool);

impl Drop for ReacquirePermit {
    fn drop(&mut self) {
        self.0.take(1);
        THREAD_PERMITS.set(Some(Arc::clone(&self.0)));
        HAS_TAKEN.set(self.1);
    }
}

/// Runs `work`, which waits for the system (a file, a lock) and does not compute. Meanwhile this
/// thread's permit is available to other threads.
pub fn waiting<T>(work: impl FnOnce() -> T) -> T {
    let Some(permits) = THREAD_PERMITS.take() else { return work() };
    permits.give(1);
    let _taking_back = ReacquirePermit(permits, HAS_TAKEN.replace(false));
    work()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// The maximum number of threads that were in `work` at once.
    fn busiest(threads: usize, permits: usize, each: impl Fn(&dyn Fn()) + Sync) -> usize {
        let permits = Permits::new(permits);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
            now.fetch_sub(1, Ordering::SeqCst);
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..5 {
                        permits.with(1, || each(&work));
                    }
                });
            }
        });
        most.into_inner()
    }

    #[test]
    fn no_more_threads_compute_than_there_are_permits() {
        assert!(busiest(6, 2, |work| work()) <= 2);
        let in_turn = |work: &dyn Fn()| {
            work();
            waiting(|| std::thread::sleep(Duration::from_millis(1)));
            work();
        };
        assert!(busiest(6, 2, in_turn) <= 2);
    }

    #[test]
    fn a_thread_that_waits_for_a_file_lets_another_compute() {
        let permits = Permits::new(1);
        let (to, from) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let other = Arc::clone(&permits);
            // this would deadlock if the permit were held while waiting
            permits.with(1, || {
                scope.spawn(move || other.with(1, || to.send(7)));
                assert_eq!(waiting(|| from.recv()), Ok(7));
            });
        });
    }

    #[test]
    fn a_thread_that_holds_a_permit_needs_no_second_one() {
        let permits = Permits::new(2);
        let (to, from) = std::sync::mpsc::channel();
        // if there is a deadlock, a thread never ends and sends nothing
        for _ in 0..2 {
            let (permits, to) = (Arc::clone(&permits), to.clone());
            std::thread::spawn(move || {
                for _ in 0..50 {
                    permits.with(1, || permits.with(1, || waiting(|| permits.with(1, || ()))));
                }
                to.send(())
            });
        }
        for _ in 0..2 {
            from.recv_timeout(Duration::from_mins(1)).unwrap();
        }
        assert_eq!(*permits.free.lock().unwrap(), 2);
        assert!(busiest(6, 2, permits_within) <= 2);
    }

    fn permits_within(work: &dyn Fn()) {
        match Permits::of_thread() {
            Some(own) => own.with(1, work),
            None => work(),
        }
    }

    #[test]
    fn permits_come_back_after_a_panic() {
        let permits = Permits::new(2);
        for inner in [false, true] {
            let one = Arc::clone(&permits);
            let work = move || {
                one.with(2, || {
                    if inner { waiting(|| panic!("on purpose")) } else { panic!("on purpose") }
                })
            };
            assert!(std::thread::spawn(work).join().is_err());
            assert_eq!(*permits.free.lock().unwrap(), 2);
        }
        assert_eq!(permits.with(9, || 5), 5);
    }

    #[test]
    fn a_thread_of_a_pool_lends_one_of_the_permits_of_its_pool() {
        let permits = Permits::new(2);
        permits.with(2, || {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    permits.join();
                    // a third thread computes while this one waits
                    waiting(|| {
                        std::thread::scope(|s| s.spawn(|| permits.with(1, || 3)).join().unwrap())
                    });
                });
            });
        });
        assert_eq!(*permits.free.lock().unwrap(), 2);
    }
}
