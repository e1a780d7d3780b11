//! Calls to an object store from plain threads, tried again while the trouble may pass.

use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions,
};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use crate::folder::Created;
use crate::positioned::read_exact_at;

type Result<T> = std::result::Result<T, Error>;

/// Attempts of one call, on top of those of the store's own client.
const MAX_ATTEMPTS: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// No further attempt begins after this.
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// Bytes moved by one request, at most: what a slow line carries well within the limit of a request.
pub(crate) const REQUEST_BYTES: u64 = 8 << 20;
/// Requests of one call that are under way at a time.
const N_AT_ONCE: usize = 8;

/// An object store as plain threads see it. Keys are complete; nothing is cached.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    /// The same store without attempts of its own: a creation that was tried twice must be known as one.
    once: Arc<dyn ObjectStore>,
}

/// Shared by all stores of the process; a few threads, as all they do is to move bytes.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("objects")
            .enable_all()
            .build()
            .expect("a process that starts has two threads left")
    })
}

impl Objects {
    /// `once` is `store` without attempts of its own.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, once: Arc<dyn ObjectStore>) -> Self {
        Self { store, once }
    }

    /// Size and ETag; none for what is not there.
    pub(crate) fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let path = Path::parse(key)?;
        runtime().block_on(retried(|| optional(self.store.head(&path))))
    }

    /// A whole small object; none for what is not there.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let path = Path::parse(key)?;
        runtime()
            .block_on(retried(|| optional(get(&self.store, &path, None, None))))
            .map(|found| found.map(|(_, bytes)| bytes))
    }

    /// The last `n_bytes` or everything, and what it is the end of. Of a version with the ETag `if_match` only.
    pub(crate) fn tail(
        &self,
        key: &str,
        n_bytes: u64,
        if_match: Option<&str>,
    ) -> Result<(ObjectMeta, Bytes)> {
        let path = Path::parse(key)?;
        let end = Some(GetRange::Suffix(n_bytes));
        runtime().block_on(async {
            match get(&self.store, &path, end.clone(), if_match).await {
                // An empty object has no last byte, and stores say so in many ways.
                Err(Error::Generic { .. }) => {
                    let meta = retried(|| self.store.head(&path)).await?;
                    if meta.size == 0 {
                        return Ok((meta, Bytes::new()));
                    }
                    retried(|| get(&self.store, &path, end.clone(), if_match)).await
                }
                done => done,
            }
        })
    }

    /// [n_ranges] bytes, several requests at a time. Of a version with the ETag `if_match` only.
    pub(crate) fn get_ranges(
        &self,
        key: &str,
        ranges: &[Range<u64>],
        if_match: Option<&str>,
    ) -> Result<Vec<Bytes>> {
        let path = Path::parse(key)?;
        let get_range = |range: Range<u64>| {
            let (store, path, if_match) = (
                self.store.clone(),
                path.clone(),
                if_match.map(str::to_owned),
            );
            async move {
                let bounded = || Some(GetRange::Bounded(range.clone()));
                let found = retried(|| get(&store, &path, bounded(), if_match.as_deref())).await?;
                let n_bytes = found.1.len() as u64;
                match n_bytes == range.end - range.start {
                    true => Ok(found.1),
                    false => Err(short(&range, n_bytes)),
                }
            }
        };
        runtime().block_on(at_once(ranges.iter().cloned().map(get_range)))
    }

    /// Writes an object, in place of an earlier one.
    pub(crate) fn put(&self, key: &str, bytes: &Bytes) -> Result<()> {
        let path = Path::parse(key)?;
        runtime()
            .block_on(retried(|| self.store.put(&path, bytes.clone().into())))
            .map(|_| ())
    }

    /// Writes an object unless there is one. A creation whose answer was lost counts as done when the object holds these bytes.
    pub(crate) fn create(&self, key: &str, bytes: &Bytes) -> Result<Created> {
        let path = Path::parse(key)?;
        let mut is_in_doubt = false;
        runtime().block_on(retried(|| {
            let was_in_doubt = std::mem::replace(&mut is_in_doubt, true);
            self.create_once(&path, bytes, was_in_doubt)
        }))
    }

    async fn create_once(&self, path: &Path, bytes: &Bytes, is_in_doubt: bool) -> Result<Created> {
        let options = PutOptions::from(PutMode::Create);
        match self
            .once
            .put_opts(path, bytes.clone().into(), options)
            .await
        {
            Ok(_) => return Ok(Created::New),
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
        // Two creations at the same moment may both be refused.
        match retried(|| optional(get(&self.store, path, None, None))).await? {
            Some((_, found)) if is_in_doubt && found == bytes => Ok(Created::New),
            Some(_) => Ok(Created::There),
            None => Err(generic("the object exists and cannot be found")),
        }
    }

    /// Writes an object of the first `size_bytes` of `file`, in place of an earlier one.
    pub(crate) fn put_file(&self, key: &str, file: &File, size_bytes: u64) -> Result<()> {
        let path = Path::parse(key)?;
        runtime().block_on(retried(|| self.upload(&path, file, size_bytes)))
    }

    async fn upload(&self, path: &Path, file: &File, size_bytes: u64) -> Result<()> {
        if size_bytes <= REQUEST_BYTES {
            let part = read_part(file, 0..size_bytes)?;
            return self.store.put(path, part.into()).await.map(|_| ());
        }
        let options = PutMultipartOptions::default();
        let mut upload = self.store.put_multipart_opts(path, options).await?;
        let write = async {
            for part in cut(0..size_bytes) {
                upload.put_part(read_part(file, part)?.into()).await?;
            }
            upload.complete().await
        };
        if let Err(error) = write.await {
            // What is left of it is the store's to clean; the error that led here says more.
            let _ = upload.abort().await;
            return Err(error);
        }
        Ok(())
    }

    /// All objects below `prefix`, in the order of their keys.
    pub(crate) fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let prefix = Path::parse(prefix)?;
        let mut found = runtime().block_on(retried(|| async {
            let mut listing = self.store.list(Some(&prefix));
            let mut found = Vec::new();
            while let Some(meta) = listing.next().await {
                found.push(meta?);
            }
            Ok(found)
        }))?;
        found.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// Removes objects; those that are not there are none too many.
    pub(crate) fn delete(&self, keys: impl IntoIterator<Item = String>) -> Result<()> {
        let delete = |key: String| {
            let store = self.store.clone();
            async move {
                let path = Path::parse(key)?;
                retried(|| optional(store.delete(&path))).await
            }
        };
        runtime()
            .block_on(at_once(keys.into_iter().map(delete)))
            .map(|_| ())
    }
}

/// `range` in parts of at most [`REQUEST_BYTES`].
pub(crate) fn cut(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range
        .step_by(REQUEST_BYTES as usize)
        .map(move |start| start..end.min(start + REQUEST_BYTES))
}

/// Whether the same call may succeed later.
pub(crate) fn may_pass(error: &Error) -> bool {
    match error {
        Error::Generic { .. } => !matches!(status(error), Some(400..=407 | 409..=428 | 430..=499)),
        Error::JoinError { .. } => true,
        _ => false,
    }
}

/// The status that a server refused a call with. Of a listing the library has it in its words only.
pub(crate) fn status(error: &Error) -> Option<u16> {
    let words = error.to_string();
    let (_, after) = words.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

async fn get(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    range: Option<GetRange>,
    if_match: Option<&str>,
) -> Result<(ObjectMeta, Bytes)> {
    let if_match = if_match.map(str::to_owned);
    let options = GetOptions {
        range,
        if_match,
        ..GetOptions::default()
    };
    let found = store.get_opts(path, options).await?;
    Ok((found.meta.clone(), found.bytes().await?))
}

async fn optional<T>(call: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    match call.await {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn retried<T, F: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> F) -> Result<T> {
    let started = Instant::now();
    let mut wait = FIRST_WAIT;
    for _ in 1..MAX_ATTEMPTS {
        match attempt().await {
            Err(error) if may_pass(&error) && started.elapsed() < GIVE_UP_AFTER => {}
            done => return done,
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
    attempt().await
}

/// What `calls` answer, in their order, some of them under way at a time; the first error ends all.
async fn at_once<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
    calls: impl Iterator<Item = F>,
) -> Result<Vec<T>> {
    let gate = Arc::new(Semaphore::new(N_AT_ONCE));
    let mut running = JoinSet::new();
    for (nth, call) in calls.enumerate() {
        let gate = gate.clone();
        running.spawn(async move {
            let _turn = gate.acquire().await;
            call.await.map(|answer| (nth, answer))
        });
    }
    let mut answers = Vec::with_capacity(running.len());
    while let Some(answer) = running.join_next().await {
        answers.push(answer??);
    }
    answers.sort_unstable_by_key(|(nth, _)| *nth);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

fn read_part(file: &File, range: Range<u64>) -> Result<Bytes> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    let unreadable = |error| Error::Generic {
        store: "spill file",
        source: Box::new(error),
    };
    read_exact_at(file, &mut bytes, range.start).map_err(unreadable)?;
    Ok(bytes.into())
}

fn short(range: &Range<u64>, n_bytes: u64) -> Error {
    let expected = range.end - range.start;
    generic(&format!(
        "{n_bytes} bytes were answered where {expected} were asked"
    ))
}

fn generic(fact: &str) -> Error {
    Error::Generic {
        store: "object store",
        source: fact.into(),
    }
}
