//! Shards of one answer: each is work for all threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use clientele_data::DataError;
use clientele_data::manifest::ShardId;
use rayon::Scope;

/// Does `each` for all `shards` on the pool that the caller is in. `n_begun` of them are begun at a time, so that memory for no more is
/// needed; whenever one is done the next one is begun, and threads that have none take from what others have begun.
///
/// # Errors
/// The first one that `each` returns; then no more shards are begun.
pub fn each(
    shards: &[ShardId],
    n_begun: usize,
    each: impl Fn(ShardId) -> Result<(), DataError> + Sync,
) -> Result<(), DataError> {
    let shards = Shards {
        all: shards,
        n_begun: AtomicUsize::new(0),
        failed: Mutex::default(),
        each,
    };
    rayon::scope(|scope| (0..n_begun.max(1)).for_each(|_| shards.begin_next(scope)));
    let failed = shards.failed.into_inner();
    let failed = failed.unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

struct Shards<'a, F> {
    all: &'a [ShardId],
    n_begun: AtomicUsize,
    failed: Mutex<Option<DataError>>,
    each: F,
}

impl<F: Fn(ShardId) -> Result<(), DataError> + Sync> Shards<'_, F> {
    fn begin_next<'s>(&'s self, scope: &Scope<'s>) {
        let nth = self.n_begun.fetch_add(1, Ordering::Relaxed);
        let Some(shard) = self.all.get(nth) else {
            return;
        };
        scope.spawn(|scope| match (self.each)(*shard) {
            Ok(()) => self.begin_next(scope),
            Err(error) => {
                self.n_begun.store(self.all.len(), Ordering::Relaxed);
                let failed = self.failed.lock();
                let mut failed = failed.unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(error);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn on_two_threads<T: Send>(run: impl FnOnce() -> T + Send) -> T {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        pool.unwrap().install(run)
    }

    #[test]
    fn each_is_done_once_and_no_more_are_begun_than_asked_for() {
        let shards: Vec<ShardId> = (0..50).map(ShardId).collect();
        for n_begun in [1, 2, 3, 99] {
            let (n_now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let done = Mutex::new(Vec::new());
            let one = |shard| {
                let now = n_now.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                // Whoever waits here may begin another one.
                rayon::join(std::thread::yield_now, std::thread::yield_now);
                done.lock().unwrap().push(shard);
                n_now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            };
            on_two_threads(|| each(&shards, n_begun, one)).unwrap();
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, shards);
            assert!(most.into_inner() <= n_begun);
        }
        on_two_threads(|| each(&[], 2, |_| panic!("there is none"))).unwrap();
    }

    #[test]
    fn an_error_ends_it() {
        let shards: Vec<ShardId> = (0..50).map(ShardId).collect();
        let n_done = AtomicUsize::new(0);
        let one = |shard: ShardId| {
            n_done.fetch_add(1, Ordering::SeqCst);
            match shard.0 {
                3 => Err(DataError::io(
                    "read",
                    Path::new("third"),
                    std::io::ErrorKind::Other.into(),
                )),
                _ => Ok(()),
            }
        };
        let refused = on_two_threads(|| each(&shards, 1, one)).unwrap_err();
        assert!(refused.to_string().contains("third"), "{refused}");
        assert_eq!(n_done.into_inner(), 4);
    }
}
