//! Features column by column, straight from the pages: one column of one row group at a time, handed out cut at block boundaries.
//!
//! Numbers of the plain physical types are decoded into a buffer that stays in cache and is used again; no Arrow array is made of
//! them. All other types take the way through Arrow, as [`crate::read`] does, and end in the same numbers.

use std::sync::Arc;

use arrow::array::Array;
use clientele_kmeans::BLOCK_ROWS;
use parquet::basic::Type as PhysicalType;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::serialized_reader::SerializedPageReader;

use crate::DataError;
use crate::column::{ColumnCounts, Number, append_f64, count_special, unpack};
use crate::manifest::{BlockId, BlockInfo, Column, Manifest, ShardId};
use crate::open_file::{OpenFile, too_few};
use crate::schema::ColumnType;
use crate::source::Source;

/// Values of one feature in one block, null as NaN, in the width that holds them exactly.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    /// Of a type that is [`ColumnType::fits_f32`].
    Narrow(&'a [f32]),
    /// Of any other.
    Wide(&'a [f64]),
}

/// Buffers of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    f32s: Vec<f32>,
    f64s: Vec<f64>,
    i32s: Vec<i32>,
    i64s: Vec<i64>,
    levels: Vec<i16>,
    narrow: Vec<f32>,
    wide: Vec<f64>,
}

/// Blocks of one row group, whose bytes are at hand.
pub(crate) struct Run<'a> {
    pub(crate) manifest: &'a Manifest,
    pub(crate) file: &'a OpenFile,
    pub(crate) bytes: Source,
    pub(crate) ids: &'a [BlockId],
}

/// Calls `each` with every run of blocks of the shard that is in one row group, the named columns at hand.
pub(crate) fn each_run<E: From<DataError>>(
    manifest: &Manifest,
    shard: ShardId,
    names: &[&str],
    each: &mut dyn FnMut(&Run<'_>) -> Result<(), E>,
) -> Result<(), E> {
    manifest.shard(shard)?;
    let ids: Vec<BlockId> = manifest.shard_blocks(shard).collect();
    let block_of = |id: &BlockId| &manifest.blocks()[id.0 as usize];
    for in_file in ids.chunk_by(|a, b| block_of(a).file_idx == block_of(b).file_idx) {
        let file_idx = block_of(&in_file[0]).file_idx;
        let file = &OpenFile::open(manifest, file_idx, names)?;
        for ids in in_file.chunk_by(|a, b| block_of(a).row_group == block_of(b).row_group) {
            let bytes = file
                .source
                .fetch(file.wanted_bytes(block_of(&ids[0]).row_group))?;
            each(&Run {
                manifest,
                file,
                bytes,
                ids,
            })?;
        }
        // A file that changed while it was read is worse than one that cannot be read. Of an object one version was asked for.
        if file.source.etag().is_none() {
            manifest.open_unchanged(file_idx)?;
        }
    }
    Ok(())
}

/// What takes some values of a block: its place in the run, their first row in it (a multiple of [`PIECE_ROWS`]), the values, and what of
/// them is not a finite number.
pub(crate) type Take<'a> = dyn FnMut(usize, usize, Values<'_>, ColumnCounts) + 'a;

/// Rows of a column that are handed out together, at most, so that they are in the nearest cache for whoever takes them: whole tiles.
pub(crate) const PIECE_ROWS: usize = 1 << 11;

impl<'a> Run<'a> {
    /// The run in pieces whose tiles take about `n_bytes` each: at least a block.
    pub(crate) fn pieces(&self, n_bytes: usize) -> impl Iterator<Item = Run<'a>> {
        let block_bytes = BLOCK_ROWS * self.manifest.n_features() * size_of::<f32>();
        let ids = self.ids.chunks((n_bytes / block_bytes).max(1));
        ids.map(|ids| Run {
            manifest: self.manifest,
            file: self.file,
            bytes: self.bytes.clone(),
            ids,
        })
    }

    pub(crate) fn block(&self, at: usize) -> &'a BlockInfo {
        &self.manifest.blocks()[self.ids[at].0 as usize]
    }

    /// Decodes one feature and hands it out in order, a piece of a block at a time.
    ///
    /// # Errors
    /// [`DataError::Read`], or [`DataError::InputChanged`] where that is the reason.
    pub(crate) fn decode(
        &self,
        feature_idx: usize,
        scratch: &mut Scratch,
        take: &mut Take<'_>,
    ) -> Result<(), DataError> {
        let column = &self.manifest.features()[feature_idx];
        let decoded = match self.plain_leaf(column) {
            Some(leaf) => self.decode_plain(leaf, column.column_type, scratch, take),
            None => self.decode_through_arrow(column, scratch, take),
        };
        decoded.map_err(|error| {
            self.file
                .read_error(self.manifest, &self.bytes, self.block(0), error)
        })
    }

    /// The leaf of a column that is one of plain numbers, at most null.
    fn plain_leaf(&self, column: &Column) -> Option<usize> {
        let schema = self.file.arrow.parquet_schema();
        let (root, _) = self.file.arrow.schema().fields().find(&column.name)?;
        let mut leaves =
            (0..schema.num_columns()).filter(|leaf| schema.get_column_root_idx(*leaf) == root);
        let leaf = leaves.next().filter(|_| leaves.next().is_none())?;
        let descriptor = schema.column(leaf);
        let is_flat = descriptor.max_rep_level() == 0 && descriptor.max_def_level() <= 1;
        let wanted = match column.column_type {
            ColumnType::Float32 => PhysicalType::FLOAT,
            ColumnType::Float64 => PhysicalType::DOUBLE,
            ColumnType::Int64 | ColumnType::UInt64 => PhysicalType::INT64,
            ColumnType::Int8
            | ColumnType::Int16
            | ColumnType::Int32
            | ColumnType::UInt8
            | ColumnType::UInt16
            | ColumnType::UInt32 => PhysicalType::INT32,
            _ => return None,
        };
        (is_flat && descriptor.physical_type() == wanted).then_some(leaf)
    }

    /// `column_type` is one of those that [`Run::plain_leaf`] lets through. Integers are cut to their width as Arrow cuts them.
    fn decode_plain(
        &self,
        leaf: usize,
        column_type: ColumnType,
        scratch: &mut Scratch,
        take: &mut Take<'_>,
    ) -> Result<(), ParquetError> {
        let Scratch {
            f32s,
            f64s,
            i32s,
            i64s,
            levels,
            narrow,
            wide,
        } = scratch;
        let i32_to_f32: fn(i32) -> f32 = match column_type {
            ColumnType::Float32 => {
                let to = |v| v;
                return self.each_block::<FloatType, f32>(
                    leaf,
                    (f32s, levels, narrow),
                    to,
                    |v| Some(v),
                    take,
                );
            }
            ColumnType::Float64 => {
                let to = |v| v;
                return self.each_block::<DoubleType, f64>(
                    leaf,
                    (f64s, levels, wide),
                    to,
                    |v| Some(v),
                    take,
                );
            }
            // To nearest, ties to even: the float nearest to the integer.
            ColumnType::Int64 => {
                let to = |v| v as f64;
                return self.each_block::<Int64Type, f64>(
                    leaf,
                    (i64s, levels, wide),
                    to,
                    |_| None,
                    take,
                );
            }
            ColumnType::UInt64 => {
                let to = |v| v as u64 as f64;
                return self.each_block::<Int64Type, f64>(
                    leaf,
                    (i64s, levels, wide),
                    to,
                    |_| None,
                    take,
                );
            }
            ColumnType::Int32 => {
                let to = f64::from;
                return self.each_block::<Int32Type, f64>(
                    leaf,
                    (i32s, levels, wide),
                    to,
                    |_| None,
                    take,
                );
            }
            ColumnType::UInt32 => {
                let to = |v| f64::from(v as u32);
                return self.each_block::<Int32Type, f64>(
                    leaf,
                    (i32s, levels, wide),
                    to,
                    |_| None,
                    take,
                );
            }
            ColumnType::Int8 => |v| f32::from(v as i8),
            ColumnType::Int16 => |v| f32::from(v as i16),
            ColumnType::UInt8 => |v| f32::from(v as u8),
            _ => |v| f32::from(v as u16),
        };
        self.each_block::<Int32Type, f32>(leaf, (i32s, levels, narrow), i32_to_f32, |_| None, take)
    }

    /// Reads a column chunk piece by piece. `to` makes a number of a value, `own` finds out that a slice of values is one of numbers.
    fn each_block<T: DataType, V: Width>(
        &self,
        leaf: usize,
        (values, levels, out): (&mut Vec<T::T>, &mut Vec<i16>, &mut Vec<V>),
        to: impl Fn(T::T) -> V,
        own: for<'v> fn(&'v [T::T]) -> Option<&'v [V]>,
        take: &mut Take<'_>,
    ) -> Result<(), ParquetError>
    where
        T::T: Copy,
    {
        let first = self.block(0);
        let metadata = self.file.arrow.metadata().row_group(first.row_group);
        let n_group_rows = usize::try_from(metadata.num_rows())?;
        let pages = SerializedPageReader::new(
            Arc::new(self.bytes.clone()),
            metadata.column(leaf),
            n_group_rows,
            None,
        )?;
        let descriptor = metadata.column(leaf).column_descr_ptr();
        let can_be_null = descriptor.max_def_level() > 0;
        let mut reader = ColumnReaderImpl::<T>::new(descriptor, Box::new(pages));
        let mut n_read = reader.skip_records(first.start_row)?;
        let mut n_wanted = first.start_row;
        let pieces = (0..self.ids.len()).flat_map(|at| {
            let n_block_rows = self.block(at).n_rows;
            let firsts = (0..n_block_rows).step_by(PIECE_ROWS);
            firsts.map(move |first_row| (at, first_row, PIECE_ROWS.min(n_block_rows - first_row)))
        });
        for (at, first_row, n_rows) in pieces {
            values.clear();
            levels.clear();
            let mut n_here = 0;
            while n_here < n_rows && n_read == n_wanted {
                match reader.read_records(n_rows - n_here, Some(levels), None, values)? {
                    (0, ..) => break,
                    (n_records, ..) => n_here += n_records,
                }
            }
            (n_read, n_wanted) = (n_read + n_here, n_wanted + n_rows);
            if n_read != n_wanted {
                return Err(too_few(n_read, n_group_rows));
            }
            let n_nulls = n_rows - values.len();
            let numbers = match own(values) {
                Some(numbers) if n_nulls == 0 => numbers,
                _ => {
                    let levels = levels.iter().filter(|_| can_be_null && n_nulls > 0);
                    fill(
                        out,
                        values.iter().map(|v| to(*v)),
                        levels.map(|level| *level > 0),
                        n_nulls,
                    );
                    out.as_slice()
                }
            };
            let counts = count_special(numbers, n_nulls as u64);
            take(at, first_row, V::values(numbers), counts);
        }
        Ok(())
    }

    fn decode_through_arrow(
        &self,
        column: &Column,
        scratch: &mut Scratch,
        take: &mut Take<'_>,
    ) -> Result<(), ParquetError> {
        let Scratch { narrow, wide, .. } = scratch;
        let n_rows = (0..self.ids.len()).map(|at| self.block(at).n_rows).sum();
        let first = self.block(0);
        let batches = self
            .file
            .batches(&self.bytes, first, n_rows, Some(&column.name))?;
        let (mut at, mut n_read) = (0, 0);
        let mut counts = ColumnCounts::default();
        wide.clear();
        for batch in batches {
            let batch = batch?;
            n_read += batch.num_rows();
            let array = unpack(batch.column(0), &column.column_type.to_arrow())?;
            let mut offset = 0;
            while offset < array.len() && at < self.ids.len() {
                let n_block_rows = self.block(at).n_rows;
                let n_taken = (array.len() - offset).min(n_block_rows - wide.len());
                counts.merge(&append_f64(&array.slice(offset, n_taken), wide));
                offset += n_taken;
                if wide.len() < n_block_rows {
                    continue;
                }
                let values = match column.column_type.fits_f32() {
                    true => {
                        narrow.clear();
                        narrow.extend(wide.iter().map(|v| *v as f32));
                        Values::Narrow(narrow)
                    }
                    false => Values::Wide(wide),
                };
                take(at, 0, values, std::mem::take(&mut counts));
                wide.clear();
                at += 1;
            }
        }
        match n_read == n_rows {
            true => Ok(()),
            false => Err(too_few(n_read, n_rows)),
        }
    }
}

/// Numbers that know how wide they are.
trait Width: Number {
    fn values(all: &[Self]) -> Values<'_>;
}

impl Width for f32 {
    fn values(all: &[Self]) -> Values<'_> {
        Values::Narrow(all)
    }
}

impl Width for f64 {
    fn values(all: &[Self]) -> Values<'_> {
        Values::Wide(all)
    }
}

/// Makes `out` the `values`, one for each row that `is_there`, with NaN between them. Without nulls `is_there` may be empty.
fn fill<V: Number>(
    out: &mut Vec<V>,
    mut values: impl Iterator<Item = V>,
    is_there: impl Iterator<Item = bool>,
    n_nulls: usize,
) {
    out.clear();
    match n_nulls {
        0 => out.extend(values),
        _ => out.extend(is_there.map(|is_there| match is_there {
            true => values.next().unwrap_or(V::NAN),
            false => V::NAN,
        })),
    }
}
