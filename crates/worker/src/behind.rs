//! Work that mostly waits for a disk or a store, done beside the threads that compute.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};

use clientele_data::DataError;

type Job = Box<dyn FnOnce() -> Result<(), DataError> + Send>;

/// Takes jobs until the work that leaves them is done.
pub struct Behind {
    jobs: SyncSender<Job>,
}

impl Behind {
    /// Does `work`, and all that it leaves behind on `n_threads` threads of their own, before it returns.
    ///
    /// # Errors
    /// What `work` returns, or else the first error of a job; jobs after it are not done.
    pub fn run<T>(
        n_threads: usize,
        work: impl FnOnce(&Self) -> Result<T, DataError>,
    ) -> Result<T, DataError> {
        // One may wait: more would only hold memory.
        let (jobs, left) = mpsc::sync_channel(1);
        let left = Mutex::new(left);
        let failed = Mutex::new(None);
        let done = std::thread::scope(|scope| {
            for _ in 0..n_threads {
                scope.spawn(|| do_jobs(&left, &failed));
            }
            work(&Self { jobs })
        })?;
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(done),
            Some(Ok(error)) => Err(error),
            Some(Err(panic)) => resume_unwind(panic),
        }
    }

    /// Leaves a job behind; waits while others wait to be begun.
    pub fn leave(&self, job: impl FnOnce() -> Result<(), DataError> + Send + 'static) {
        // There is always a thread that takes it: not even a panic ends one.
        let _ = self.jobs.send(Box::new(job));
    }
}

/// Why a job was not done.
type Failure = Result<DataError, Box<dyn Any + Send>>;

fn do_jobs(left: &Mutex<Receiver<Job>>, failed: &Mutex<Option<Failure>>) {
    let next = || {
        let left = left.lock().unwrap_or_else(PoisonError::into_inner);
        left.recv().ok()
    };
    let failed = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(job) = next() {
        if failed().is_some() {
            continue;
        }
        let failure = match catch_unwind(AssertUnwindSafe(job)) {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => Ok(error),
            Err(panic) => Err(panic),
        };
        failed().get_or_insert(failure);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn error(path: &str) -> DataError {
        DataError::io("write", Path::new(path), std::io::ErrorKind::Other.into())
    }

    #[test]
    fn all_jobs_are_done_when_it_returns() {
        for n_threads in [1, 3] {
            let n_done = Arc::new(AtomicUsize::new(0));
            let answer = Behind::run(n_threads, |behind| {
                for _ in 0..50 {
                    let n_done = n_done.clone();
                    behind.leave(move || {
                        n_done.fetch_add(1, Ordering::Relaxed);
                        Ok(())
                    });
                }
                Ok(7)
            });
            assert_eq!((answer.unwrap(), n_done.load(Ordering::Relaxed)), (7, 50));
        }
    }

    #[test]
    fn a_job_that_fails_is_the_answer_and_ends_the_others() {
        let n_done = Arc::new(AtomicUsize::new(0));
        let refused = Behind::run(1, |behind| {
            behind.leave(|| Err(error("first")));
            for _ in 0..20 {
                let n_done = n_done.clone();
                behind.leave(move || {
                    n_done.fetch_add(1, Ordering::Relaxed);
                    Err(error("later"))
                });
            }
            Ok(())
        });
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("first"), "{refused}");
        assert_eq!(n_done.load(Ordering::Relaxed), 0);
        let refused = Behind::run(2, |_| Err::<(), _>(error("work"))).unwrap_err();
        assert!(refused.to_string().contains("work"));
    }

    #[test]
    fn a_job_that_panics_is_no_end_of_waiting() {
        let run = || {
            Behind::run(1, |behind| {
                (0..20).for_each(|_| behind.leave(|| panic!("planted")));
                Ok(())
            })
        };
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"planted"));
    }
}
