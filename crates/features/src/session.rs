//! The engine: a DataFusion session with its own threads, memory pool and spill folder, used from code that is not async.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{SessionConfig, SessionContext};
use tokio::runtime::Runtime;
use url::Url;

use crate::build::BuildOptions;
use crate::error::FeatureError;
use crate::tables::Table;

/// The pool counts what operators hold and not what they pass on, so it is planned at this part of the process.
const POOL_PERCENT: u64 = 55;

/// A session and the threads it runs on.
pub(crate) struct Session {
    context: SessionContext,
    runtime: Runtime,
    memory_bytes: Option<u64>,
}

impl Session {
    /// Starts threads; what does not fit in memory is spilled to files under `spill_dir`, which go when the session goes.
    pub fn new(options: &BuildOptions, spill_dir: Option<&Path>) -> Result<Self, FeatureError> {
        let n_threads = match options.n_threads {
            Some(n_threads) => n_threads.get(),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(n_threads)
            .enable_all()
            .build()
            .map_err(|source| FeatureError::Threads { source })?;
        let mut environment = RuntimeEnvBuilder::new();
        if let Some(spill_dir) = spill_dir {
            environment = environment.with_temp_file_path(spill_dir);
        }
        let mut settings = settings(n_threads);
        if let Some(memory_bytes) = options.memory_bytes {
            let pool_bytes =
                usize::try_from(memory_bytes / 100 * POOL_PERCENT).unwrap_or(usize::MAX);
            environment = environment.with_memory_pool(Arc::new(FairSpillPool::new(pool_bytes)));
            reserve_for_merging(&mut settings, pool_bytes, n_threads);
        }
        let environment = environment
            .build_arc()
            .map_err(|e| FeatureError::query("start", options.memory_bytes, e))?;
        let context = SessionContext::new_with_config_rt(settings, environment);
        Ok(Self {
            context,
            runtime,
            memory_bytes: options.memory_bytes,
        })
    }

    /// Makes a table known under its own name.
    pub fn register(&self, table: &Table) -> Result<(), FeatureError> {
        self.register_as(table.name, table)
    }

    /// Makes a table known under another name.
    pub fn register_as(&self, name: &str, table: &Table) -> Result<(), FeatureError> {
        listing(table)
            .and_then(|listing| self.context.register_table(name, Arc::new(listing)))
            .map(drop)
            .map_err(|e| self.failed(&format!("open table `{}`", table.name), e))
    }

    /// Reads a predicate against a schema, without running it.
    pub fn parse(&self, sql: &str, schema: &DFSchema) -> Result<Expr> {
        self.context.parse_sql_expr(sql, schema)
    }

    /// All rows of a small answer. `step` says what the query is for, after "the engine could not".
    pub fn rows(&self, step: &str, sql: &str) -> Result<Vec<RecordBatch>, FeatureError> {
        self.runtime
            .block_on(async { self.context.sql(sql).await?.collect().await })
            .map_err(|e| self.failed(step, e))
    }

    /// A large answer, a batch at a time and in order.
    pub fn stream(&self, step: &'static str, sql: &str) -> Result<Batches<'_>, FeatureError> {
        let open = async { self.context.sql(sql).await?.execute_stream().await };
        let stream = self
            .runtime
            .block_on(open)
            .map_err(|e| self.failed(step, e))?;
        Ok(Batches {
            session: self,
            step,
            stream,
        })
    }

    fn failed(&self, step: &str, source: DataFusionError) -> FeatureError {
        FeatureError::query(step, self.memory_bytes, source)
    }
}

/// The batches of an answer that is still being computed.
pub(crate) struct Batches<'a> {
    session: &'a Session,
    step: &'static str,
    stream: SendableRecordBatchStream,
}

impl Batches<'_> {
    /// The schema of every batch.
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<RecordBatch, FeatureError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stream = &mut self.stream;
        let next = std::future::poll_fn(|context| stream.as_mut().poll_next(context));
        let batch = self.session.runtime.block_on(next)?;
        Some(batch.map_err(|e| self.session.failed(self.step, e)))
    }
}

fn settings(n_threads: usize) -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(n_threads);
    let options = config.options_mut();
    // Column names mean what the files say: `CustomerID` is not `customerid`.
    options.sql_parser.enable_ident_normalization = false;
    // Ids keep the type they have in the source.
    options.execution.parquet.schema_force_view_types = false;
    config
}

/// Every sort sets this aside to merge what it spilled; a small pool must hold it once a thread, with room for the rest.
fn reserve_for_merging(settings: &mut SessionConfig, pool_bytes: usize, n_threads: usize) {
    let reservation = &mut settings
        .options_mut()
        .execution
        .sort_spill_reservation_bytes;
    *reservation = (*reservation).min(pool_bytes / (8 * n_threads));
}

/// The files as one table with the schema of the first: columns are matched by name, and the ones in use were compared.
fn listing(table: &Table) -> Result<ListingTable> {
    let mut urls = Vec::with_capacity(table.files.len());
    for file in &table.files {
        // The engine takes no `..`; and built from the path, not parsed, a `[` in a name is no pattern.
        let absolute = std::fs::canonicalize(file)?;
        let url = Url::from_file_path(&absolute)
            .map_err(|()| DataFusionError::Plan(format!("no URL for {}", absolute.display())))?;
        urls.push(ListingTableUrl::try_new(url, None)?);
    }
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension("");
    let schema = Schema::new(table.schema().fields().clone());
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(options)
        .with_schema(Arc::new(schema));
    ListingTable::try_new(config)
}
