//! An object store in memory whose calls fail now and then, and are counted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio_stream::{Stream, StreamExt};

type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// Every call may fail before anything happens, or after everything has: then only the answer is lost.
#[derive(Debug, Clone)]
pub struct Flaky {
    pub inner: Arc<InMemory>,
    per_cent: u64,
    n_calls: Arc<AtomicU64>,
    n_gets: Arc<AtomicU64>,
    n_failed: Arc<AtomicU64>,
}

enum Fate {
    Succeeds,
    FailsBefore,
    FailsAfter,
}

impl Flaky {
    /// Fails `per_cent` of all calls, half of them after they were carried out; which ones is the same in every test.
    pub fn new(per_cent: u64) -> Self {
        Self {
            inner: Arc::default(),
            per_cent,
            n_calls: Arc::default(),
            n_gets: Arc::default(),
            n_failed: Arc::default(),
        }
    }

    pub fn n_failed(&self) -> u64 {
        self.n_failed.load(Ordering::Relaxed)
    }

    pub fn n_gets(&self) -> u64 {
        self.n_gets.load(Ordering::Relaxed)
    }

    fn fate(&self) -> Fate {
        let nth = self.n_calls.fetch_add(1, Ordering::Relaxed);
        let draw = u64::from(blake3::hash(&nth.to_le_bytes()).as_bytes()[0]) * 100 / 256;
        if draw >= self.per_cent {
            return Fate::Succeeds;
        }
        self.n_failed.fetch_add(1, Ordering::Relaxed);
        match draw * 2 >= self.per_cent {
            true => Fate::FailsAfter,
            false => Fate::FailsBefore,
        }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        match self.fate() {
            Fate::Succeeds => call.await,
            Fate::FailsBefore => Err(unavailable()),
            Fate::FailsAfter => {
                let _ = call.await;
                Err(unavailable())
            }
        }
    }
}

fn unavailable() -> Error {
    Error::Generic {
        store: "flaky",
        source: "503".into(),
    }
}

impl std::fmt::Display for Flaky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("flaky")
    }
}

#[async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.call(self.inner.put_opts(location, payload, options))
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.call(self.inner.put_multipart_opts(location, options))
            .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.n_gets.fetch_add(1, Ordering::Relaxed);
        self.call(self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<Result<Path>>) -> BoxStream<Result<Path>> {
        let store = self.clone();
        let deleted = self.inner.delete_stream(locations);
        Box::pin(deleted.map(move |path| match store.fate() {
            Fate::Succeeds => path,
            _ => Err(unavailable()),
        }))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<Result<ObjectMeta>> {
        match self.fate() {
            Fate::Succeeds => self.inner.list(prefix),
            _ => Box::pin(
                self.inner
                    .list(prefix)
                    .chain(tokio_stream::once(Err(unavailable()))),
            ),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.call(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.call(self.inner.copy_opts(from, to, options)).await
    }
}
