//! A few threads for questions that mostly wait.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::DataError;

/// What `answer` says of each of `items`, in their order, on `n_threads`; the first error ends all.
pub(crate) fn map<T: Sync, R: Send>(
    n_threads: usize,
    items: &[T],
    answer: impl Fn(&T) -> Result<R, DataError> + Sync,
) -> Result<Vec<R>, DataError> {
    let n_threads = n_threads.min(items.len());
    if n_threads <= 1 {
        return items.iter().map(answer).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, R)>, DataError> {
        let mut answers = Vec::new();
        loop {
            let idx = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(idx) else {
                return Ok(answers);
            };
            let answered = answer(item);
            if answered.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            answers.push((idx, answered?));
        }
    };
    let mut answers = Vec::with_capacity(items.len());
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        for thread in running {
            let some = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            answers.extend(some?);
        }
        Ok(())
    })?;
    answers.sort_unstable_by_key(|(idx, _)| *idx);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}
