//! Shards as blocks of plain numbers, streamed: at most one block and its decoded batch are in memory.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, RecordBatch};
use parquet::errors::ParquetError;

use crate::DataError;
use crate::column::{append_f64, append_fixed, unpack};
use crate::decode::{Run, each_run};
use crate::ids::{Fingerprint, Ids};
use crate::manifest::{BlockId, BlockInfo, Column, Manifest, NullPolicy, ShardId};
use crate::open_file::too_few;

pub use crate::column::{ColumnCounts, NO_VALUE};

/// Which parts of a row are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// [n_features] whether to read each feature; the columns of others stay empty.
    pub features: Vec<bool>,
    /// Whether to fingerprint ids.
    pub ids: bool,
    /// Whether to read the value column, if there is one.
    pub value: bool,
}

impl Projection {
    /// Everything.
    pub fn all(manifest: &Manifest) -> Self {
        Self {
            features: vec![true; manifest.n_features()],
            ids: true,
            value: true,
        }
    }
}

/// One block as it lies in the input. The reader reuses it for the next block.
#[derive(Debug, Clone, Default)]
pub struct RawBlock {
    /// Which block.
    pub id: BlockId,
    /// Rows here, after [`NullPolicy::Drop`].
    pub n_rows: usize,
    /// [n_features][n_rows] values, null as NaN; empty for features that were not asked for.
    pub columns: Vec<Vec<f64>>,
    /// [n_features] what is not a finite number, over all rows of the block, dropped ones included.
    pub counts: Vec<ColumnCounts>,
    /// [n_rows] fingerprints of the ids, or of the row numbers in a table without; empty when not asked for.
    pub ids: Vec<Fingerprint>,
    /// [n_rows] values in 1/10,000 of their unit, [`NO_VALUE`] for null; `None` without a value column.
    pub values: Option<Vec<i64>>,
    /// [n_rows] places in the block as it lies in the input; `None` when no row was dropped.
    pub source_rows: Option<Vec<u32>>,
    /// Rows dropped.
    pub n_dropped: usize,
}

/// Calls `each` with every block of the shard, in order.
///
/// # Errors
/// [`DataError::InputChanged`] when a file is not the planned one, before or after; [`DataError::Read`] when it cannot be decoded;
/// [`DataError::NullIds`], [`DataError::ValueRange`]; what `each` returns.
pub fn read_shard<E: From<DataError>>(
    manifest: &Manifest,
    shard: ShardId,
    projection: &Projection,
    each: &mut dyn FnMut(&mut RawBlock) -> Result<(), E>,
) -> Result<(), E> {
    let wanted = Wanted::new(manifest, projection);
    let mut raw = RawBlock::default();
    each_piece(manifest, shard, &wanted.names(), &mut |piece| {
        if piece.is_first {
            wanted.reset(&mut raw, piece.id);
        }
        wanted.append(&mut raw, piece)?;
        if !piece.is_last {
            return Ok(());
        }
        if manifest.nulls() == NullPolicy::Drop {
            drop_incomplete_rows(&mut raw);
        }
        each(&mut raw)
    })
}

/// Calls `each` with the ids of every block of the shard, in order; all rows, also those that [`NullPolicy::Drop`] leaves out.
///
/// # Errors
/// As [`read_shard`].
pub fn read_ids<E: From<DataError>>(
    manifest: &Manifest,
    shard: ShardId,
    each: &mut dyn FnMut(BlockId, Ids) -> Result<(), E>,
) -> Result<(), E> {
    let Some(column) = manifest.id() else {
        for id in manifest.shard_blocks(shard) {
            let block = &manifest.blocks()[id.0 as usize];
            each(id, Ids::from_row_numbers(block.first_row, block.n_rows))?;
        }
        return Ok(());
    };
    let mut parts: Vec<ArrayRef> = Vec::new();
    each_piece(manifest, shard, &[&column.name], &mut |piece| {
        parts.push(piece.id_column(manifest, column)?);
        if !piece.is_last {
            return Ok(());
        }
        let arrays: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        let array = match arrays.as_slice() {
            [_] => parts[0].clone(),
            many => arrow::compute::concat(many)
                .map_err(|error| piece.unreadable(manifest, error.into()))?,
        };
        parts.clear();
        each(piece.id, Ids::from_column(array))
    })
}

/// What to take from each piece.
struct Wanted<'a> {
    manifest: &'a Manifest,
    projection: &'a Projection,
    id: Option<&'a Column>,
    value: Option<&'a Column>,
    /// [n_features]
    features: Vec<bool>,
}

impl<'a> Wanted<'a> {
    fn new(manifest: &'a Manifest, projection: &'a Projection) -> Self {
        // Which rows are dropped depends on all features, so all are read even when few are asked for.
        let features = match manifest.nulls() {
            NullPolicy::Drop => vec![true; manifest.n_features()],
            _ => projection.features.clone(),
        };
        Self {
            manifest,
            projection,
            id: manifest.id().filter(|_| projection.ids),
            value: manifest.value().filter(|_| projection.value),
            features,
        }
    }

    fn names(&self) -> Vec<&str> {
        let features = self.manifest.features().iter().zip(&self.features);
        let features = features
            .filter(|(_, wanted)| **wanted)
            .map(|(column, _)| column);
        let columns = features.chain(self.id).chain(self.value);
        columns.map(|column| column.name.as_str()).collect()
    }

    fn reset(&self, raw: &mut RawBlock, id: BlockId) {
        raw.id = id;
        raw.n_rows = 0;
        raw.n_dropped = 0;
        raw.source_rows = None;
        raw.ids.clear();
        raw.columns.resize_with(self.features.len(), Vec::new);
        raw.columns.iter_mut().for_each(Vec::clear);
        raw.counts.clear();
        raw.counts
            .resize(self.features.len(), ColumnCounts::default());
        raw.values = self.value.map(|_| {
            let mut values = raw.values.take().unwrap_or_default();
            values.clear();
            values
        });
    }

    fn append(&self, raw: &mut RawBlock, piece: &Piece<'_>) -> Result<(), DataError> {
        for (feature_idx, column) in self.manifest.features().iter().enumerate() {
            if self.features[feature_idx] {
                let array = piece.column(self.manifest, column)?;
                let counts = append_f64(&array, &mut raw.columns[feature_idx]);
                raw.counts[feature_idx].merge(&counts);
            }
        }
        if let (Some(column), Some(values)) = (self.value, &mut raw.values) {
            let n_values = append_fixed(&piece.column(self.manifest, column)?, values);
            if n_values > 0 {
                let (path, row_group) = piece.place(self.manifest);
                let column = column.name.clone();
                return Err(DataError::ValueRange {
                    column,
                    path,
                    row_group,
                    n_values,
                });
            }
        }
        if let Some(column) = self.id {
            Ids::from_column(piece.id_column(self.manifest, column)?).fingerprints(&mut raw.ids);
        } else if self.projection.ids {
            let first_row = piece.block.first_row + raw.n_rows as u64;
            Ids::from_row_numbers(first_row, piece.batch.num_rows()).fingerprints(&mut raw.ids);
        }
        raw.n_rows += piece.batch.num_rows();
        Ok(())
    }
}

fn drop_incomplete_rows(raw: &mut RawBlock) {
    if raw.counts.iter().all(|counts| counts.missing() == 0) {
        return;
    }
    let mut is_kept = vec![true; raw.n_rows];
    for column in &raw.columns {
        is_kept
            .iter_mut()
            .zip(column)
            .for_each(|(kept, value)| *kept &= !value.is_nan());
    }
    let n_before = raw.n_rows;
    for column in &mut raw.columns {
        retain(column, &is_kept);
    }
    if !raw.ids.is_empty() {
        retain(&mut raw.ids, &is_kept);
    }
    if let Some(values) = &mut raw.values {
        retain(values, &is_kept);
    }
    let rows = is_kept
        .iter()
        .zip(0..)
        .filter(|(kept, _)| **kept)
        .map(|(_, row)| row);
    let source_rows: Vec<u32> = rows.collect();
    raw.n_rows = source_rows.len();
    raw.n_dropped = n_before - raw.n_rows;
    raw.source_rows = Some(source_rows);
}

fn retain<T>(values: &mut Vec<T>, is_kept: &[bool]) {
    let mut kept = is_kept.iter();
    values.retain(|_| *kept.next().expect("one flag a row"));
}

/// Rows of one block as they came out of the decoder.
struct Piece<'a> {
    id: BlockId,
    block: &'a BlockInfo,
    is_first: bool,
    is_last: bool,
    batch: RecordBatch,
    /// Places of the columns in the batch.
    places: &'a BTreeMap<String, usize>,
}

impl Piece<'_> {
    fn column(&self, manifest: &Manifest, column: &Column) -> Result<ArrayRef, DataError> {
        let array = self.batch.column(self.places[&column.name]);
        unpack(array, &column.column_type.to_arrow())
            .map_err(|error| self.unreadable(manifest, error.into()))
    }

    fn id_column(&self, manifest: &Manifest, column: &Column) -> Result<ArrayRef, DataError> {
        let array = self.column(manifest, column)?;
        let n_nulls = array.logical_null_count();
        if n_nulls > 0 {
            let (path, row_group) = self.place(manifest);
            let column = column.name.clone();
            return Err(DataError::NullIds {
                column,
                path,
                row_group,
                n_nulls,
            });
        }
        Ok(array)
    }

    fn place(&self, manifest: &Manifest) -> (std::path::PathBuf, usize) {
        let path = manifest.files()[self.block.file_idx].place.shown();
        (path, self.block.row_group)
    }

    fn unreadable(&self, manifest: &Manifest, source: ParquetError) -> DataError {
        let (path, row_group) = self.place(manifest);
        DataError::Read {
            path,
            row_group,
            source,
        }
    }
}

/// Decodes the named columns of the shard and hands them out cut at block boundaries.
fn each_piece<E: From<DataError>>(
    manifest: &Manifest,
    shard: ShardId,
    names: &[&str],
    each: &mut dyn FnMut(&Piece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    each_run(manifest, shard, names, &mut |run| {
        each_piece_of_run(manifest, run, each)
    })
}

fn each_piece_of_run<E: From<DataError>>(
    manifest: &Manifest,
    run: &Run<'_>,
    each: &mut dyn FnMut(&Piece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let first = run.block(0);
    let read_error = |source| run.file.read_error(manifest, &run.bytes, first, source);
    let blocks: Vec<&BlockInfo> = (0..run.ids.len()).map(|at| run.block(at)).collect();
    let n_rows: usize = blocks.iter().map(|block| block.n_rows).sum();
    let batches = run.file.batches(&run.bytes, first, n_rows, None);
    let batches = batches.map_err(read_error)?;
    let (mut at, mut filled, mut n_read) = (0, 0, 0);
    for batch in batches {
        let batch = batch.map_err(|error| read_error(error.into()))?;
        n_read += batch.num_rows();
        let mut offset = 0;
        while offset < batch.num_rows() && at < blocks.len() {
            let block = blocks[at];
            let n_taken = (batch.num_rows() - offset).min(block.n_rows - filled);
            let is_last = filled + n_taken == block.n_rows;
            each(&Piece {
                id: run.ids[at],
                block,
                is_first: filled == 0,
                is_last,
                batch: batch.slice(offset, n_taken),
                places: run.file.places(),
            })?;
            offset += n_taken;
            (at, filled) = if is_last {
                (at + 1, 0)
            } else {
                (at, filled + n_taken)
            };
        }
    }
    if n_read != n_rows {
        return Err(read_error(too_few(n_read, n_rows)).into());
    }
    Ok(())
}
