//! Small Parquet tables for tests.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use clientele_data::ingest::{IngestPartial, ingest};
use clientele_data::read::{Projection, RawBlock, read_shard};
use clientele_data::stats::{StatsPartial, StatsPlanner};
use clientele_data::transform::{Transform, TransformKind};
use clientele_data::{Columns, DataError, Manifest, NullPolicy, ShardId, TableSpec};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// Columns by name.
pub type Table = Vec<(&'static str, ArrayRef)>;

pub fn write(path: &Path, table: &Table, group_rows: usize) {
    let columns = table
        .iter()
        .map(|(name, array)| (*name, array.clone(), true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    write_batch(path, &batch, group_rows);
}

pub fn write_batch(path: &Path, batch: &RecordBatch, group_rows: usize) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .build();
    let mut writer = ArrowWriter::try_new(
        File::create(path).unwrap(),
        batch.schema(),
        Some(properties),
    )
    .unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

pub fn floats(values: impl IntoIterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Float64Array>())
}

pub fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// All numeric columns of the files in `folder`, customers named by `id`.
pub fn spec(folder: &Path) -> TableSpec {
    TableSpec {
        inputs: vec![folder.to_string_lossy().into_owned()],
        id: Some("id".to_owned()),
        columns: Columns::AllNumeric,
        nulls: NullPolicy::Impute,
        value: None,
    }
}

/// One file of one table in a folder of its own, planned.
pub fn plan(
    table: &Table,
    change: impl FnOnce(&mut TableSpec),
) -> (tempfile::TempDir, Result<Manifest, DataError>) {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.parquet"), table, 1_000_000);
    let mut spec = spec(folder.path());
    change(&mut spec);
    let manifest = Manifest::plan(&spec);
    (folder, manifest)
}

pub fn file_in(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}

/// Runs the rounds to the end; also how many there were.
pub fn statistics(manifest: &Manifest, kind: TransformKind) -> Result<(Transform, u32), DataError> {
    let mut planner = StatsPlanner::new(manifest, kind);
    let mut n_rounds = 0;
    while let Some(request) = planner.request() {
        let mut total = StatsPartial::zero(&request);
        // Backwards, so that nothing may depend on the order of shards.
        for shard in (0..manifest.n_shards()).rev().map(ShardId) {
            let mut partial = StatsPartial::zero(&request);
            read_shard(
                manifest,
                shard,
                &request.projection(),
                &mut |raw: &mut RawBlock| {
                    partial.add_block(&request, raw);
                    Ok::<_, DataError>(())
                },
            )?;
            total.merge(&partial);
        }
        planner.absorb(total)?;
        n_rounds += 1;
    }
    Ok((planner.finish()?, n_rounds))
}

/// A row as the clustering sees it.
pub type GridRow = (u64, Vec<i32>, Option<i64>);

/// All rows on the grid, sorted, and what they add up to.
pub fn grid_rows(
    manifest: &Manifest,
    transform: &Transform,
) -> Result<(Vec<GridRow>, IngestPartial), DataError> {
    let mut rows = Vec::new();
    let mut total = IngestPartial::zero(manifest.n_features());
    for shard in (0..manifest.n_shards()).map(ShardId) {
        read_shard(
            manifest,
            shard,
            &Projection::all(manifest),
            &mut |raw: &mut RawBlock| {
                let grid = ingest(raw, transform, &mut total)?;
                for (row_idx, key) in grid.block.keys().iter().enumerate() {
                    let mut row = vec![0; manifest.n_features()];
                    grid.block.read_row(row_idx, &mut row);
                    rows.push((
                        *key,
                        row,
                        grid.values.as_ref().map(|values| values[row_idx]),
                    ));
                }
                Ok::<_, DataError>(())
            },
        )?;
    }
    rows.sort_unstable();
    Ok((rows, total))
}

/// Raw columns of all shards, one after the other.
pub fn raw_columns(manifest: &Manifest) -> Result<Vec<Vec<f64>>, DataError> {
    let mut columns = vec![Vec::new(); manifest.n_features()];
    for shard in (0..manifest.n_shards()).map(ShardId) {
        read_shard(
            manifest,
            shard,
            &Projection::all(manifest),
            &mut |raw: &mut RawBlock| {
                columns
                    .iter_mut()
                    .zip(&raw.columns)
                    .for_each(|(all, block)| all.extend(block));
                Ok::<_, DataError>(())
            },
        )?;
    }
    Ok(columns)
}
