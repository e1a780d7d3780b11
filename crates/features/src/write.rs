//! The two files of a feature table.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::json;

use crate::dictionary::{CustomerCounts, FeatureTable};
use crate::error::FeatureError;
use crate::session::Session;

/// Name of the table in the output folder.
const TABLE: &str = "features.parquet";

/// Name of the dictionary in the output folder.
pub(crate) const DICTIONARY: &str = "features.json";

/// Rows handed to the writer at a time: fixed, so that page boundaries do not depend on how the engine cut its batches.
const BATCH_ROWS: usize = 8_192;

/// What was written.
pub(crate) struct Written {
    pub path: PathBuf,
    pub customers: CustomerCounts,
}

/// Runs the statement and writes its rows, less the inactive customers and the column that says so (the last).
pub(crate) fn features(
    session: &Session,
    sql: &str,
    out_dir: &Path,
) -> Result<Written, FeatureError> {
    let path = out_dir.join(TABLE);
    let temporary = out_dir.join(format!(".{TABLE}.tmp"));
    match write_rows(session, sql, &temporary) {
        Ok(customers) => {
            rename(&temporary, &path)?;
            Ok(Written { path, customers })
        }
        Err(error) => {
            // The first error is the one to report; a temporary file that stays does no harm.
            let _ = std::fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn write_rows(session: &Session, sql: &str, path: &Path) -> Result<CustomerCounts, FeatureError> {
    let batches = session.stream("compute the features", sql)?;
    let mut writer = TableWriter::create(path, &batches.schema())?;
    let mut customers = CustomerCounts::default();
    for batch in batches {
        writer.push(&batch?, &mut customers)?;
    }
    if customers.kept == 0 {
        return Err(FeatureError::NoCustomers {
            n_customers: customers.seen,
        });
    }
    writer.finish()?;
    Ok(customers)
}

/// Cuts rows into even batches and writes them under a temporary name.
struct TableWriter {
    path: PathBuf,
    schema: SchemaRef,
    coalescer: BatchCoalescer,
    writer: ArrowWriter<File>,
}

impl TableWriter {
    /// `schema` has the column of the activity as its last.
    fn create(path: &Path, schema: &Schema) -> Result<Self, FeatureError> {
        let n_columns = schema.fields().len() - 1;
        let schema = Arc::new(Schema::new(schema.fields()[..n_columns].to_vec()));
        let file = File::create(path).map_err(|source| FeatureError::Write {
            path: path.to_owned(),
            source,
        })?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))
            .map_err(|e| parquet_error(path, e))?;
        let coalescer = BatchCoalescer::new(schema.clone(), BATCH_ROWS);
        Ok(Self {
            path: path.to_owned(),
            schema,
            coalescer,
            writer,
        })
    }

    fn push(
        &mut self,
        batch: &RecordBatch,
        customers: &mut CustomerCounts,
    ) -> Result<(), FeatureError> {
        let n_columns = self.schema.fields().len();
        let active: &BooleanArray = batch.column(n_columns).as_boolean();
        let (seen, kept) = (batch.num_rows() as u64, active.true_count() as u64);
        customers.seen += seen;
        customers.kept += kept;
        customers.below_activity += seen - kept;
        let columns = batch.columns()[..n_columns].to_vec();
        RecordBatch::try_new(self.schema.clone(), columns)
            .and_then(|rows| self.coalescer.push_batch_with_filter(rows, active))
            .map_err(|e| parquet_error(&self.path, e.into()))?;
        self.write_completed()
    }

    fn write_completed(&mut self) -> Result<(), FeatureError> {
        while let Some(batch) = self.coalescer.next_completed_batch() {
            self.writer
                .write(&batch)
                .map_err(|e| parquet_error(&self.path, e))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), FeatureError> {
        self.coalescer
            .finish_buffered_batch()
            .map_err(|e| parquet_error(&self.path, e.into()))?;
        self.write_completed()?;
        let file = self
            .writer
            .into_inner()
            .map_err(|e| parquet_error(&self.path, e))?;
        file.sync_all().map_err(|source| FeatureError::Write {
            path: self.path,
            source,
        })
    }
}

/// Writes `features.json`: what the table says about itself, without paths and times, so that the same data give the same file.
pub(crate) fn dictionary(table: &FeatureTable) -> Result<(), FeatureError> {
    let content = json!({
        "id_column": table.id_column,
        "as_of": table.as_of,
        "features": table.features,
        "value": table.value,
        "lines": table.lines,
        "customers": table.customers,
        "sql": table.sql,
    });
    let path = &table.dictionary_path;
    let temporary = path.with_file_name(format!(".{DICTIONARY}.tmp"));
    let failed = |source| FeatureError::Write {
        path: path.clone(),
        source,
    };
    let mut file = File::create(&temporary).map_err(failed)?;
    writeln!(file, "{content:#}")
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    rename(&temporary, path)
}

fn rename(from: &Path, to: &Path) -> Result<(), FeatureError> {
    std::fs::rename(from, to).map_err(|source| FeatureError::Write {
        path: to.to_owned(),
        source,
    })
}

/// A full disk arrives wrapped in a Parquet error; whoever decides about trying again needs the system's own.
fn parquet_error(path: &Path, error: ParquetError) -> FeatureError {
    let path = path.to_owned();
    let source = match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(io) => *io,
            Err(cause) => std::io::Error::other(cause),
        },
        other => std::io::Error::other(other),
    };
    FeatureError::Write { path, source }
}

/// `YYYY-MM-DD` of a day since 1970-01-01.
pub(crate) fn date(day: i32) -> String {
    arrow::temporal_conversions::date32_to_datetime(day).map_or_else(
        || format!("day {day}"),
        |date| date.format("%Y-%m-%d").to_string(),
    )
}
