//! An input file that was seen to be the planned one, and the columns that are read of it.

use std::collections::BTreeMap;
use std::ops::Range;

use clientele_kmeans::BLOCK_ROWS;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;

use crate::DataError;
use crate::manifest::{BlockInfo, Manifest};
use crate::source::Source;

/// A file whose footer is the planned one.
pub(crate) struct OpenFile {
    pub(crate) source: Source,
    pub(crate) arrow: ArrowReaderMetadata,
    mask: ProjectionMask,
    places: BTreeMap<String, usize>,
}

impl OpenFile {
    /// `names` are the columns that will be read.
    pub(crate) fn open(
        manifest: &Manifest,
        file_idx: usize,
        names: &[&str],
    ) -> Result<Self, DataError> {
        let (source, footer) = manifest.open_file(file_idx)?;
        let path = manifest.files()[file_idx].place.shown();
        let unreadable = |source| DataError::Read {
            path: path.clone(),
            row_group: 0,
            source,
        };
        let arrow = crate::manifest::arrow_metadata(&footer).map_err(unreadable)?;
        let mut roots = BTreeMap::new();
        for name in names {
            let Some((root, _)) = arrow.schema().fields().find(name) else {
                let error = format!("column `{name}` is gone from the schema");
                return Err(unreadable(ParquetError::General(error)));
            };
            roots.insert(root, (*name).to_owned());
        }
        let mask = ProjectionMask::roots(arrow.parquet_schema(), roots.keys().copied());
        let places = roots.into_values().zip(0..).collect();
        Ok(Self {
            source,
            arrow,
            mask,
            places,
        })
    }

    /// Where the wanted columns of a row group lie in the file.
    pub(crate) fn wanted_bytes(&self, row_group: usize) -> Vec<Range<u64>> {
        let columns = self.arrow.metadata().row_group(row_group).columns();
        let wanted = columns.iter().enumerate();
        let wanted = wanted.filter(|(leaf, _)| self.mask.leaf_included(*leaf));
        // What is negative is damaged: the decoder says so.
        let bytes_of = |column: &ColumnChunkMetaData| {
            let first_page = column.data_page_offset();
            let start = column.dictionary_page_offset().unwrap_or(first_page);
            let start = u64::try_from(start.min(first_page)).ok()?;
            let n_bytes = u64::try_from(column.compressed_size()).ok()?;
            Some(start..start.saturating_add(n_bytes))
        };
        wanted.filter_map(|(_, column)| bytes_of(column)).collect()
    }

    /// Places of the columns in a batch of all of them.
    pub(crate) fn places(&self) -> &BTreeMap<String, usize> {
        &self.places
    }

    /// Decodes `n_rows` of a row group from those of `first` on through Arrow: all columns, or the one that is named. `bytes` hold them.
    pub(crate) fn batches(
        &self,
        bytes: &Source,
        first: &BlockInfo,
        n_rows: usize,
        only: Option<&str>,
    ) -> Result<ParquetRecordBatchReader, ParquetError> {
        let mask = match only.and_then(|name| self.arrow.schema().fields().find(name)) {
            Some((root, _)) => ProjectionMask::roots(self.arrow.parquet_schema(), [root]),
            None => self.mask.clone(),
        };
        let selection = [
            RowSelector::skip(first.start_row),
            RowSelector::select(n_rows),
        ];
        ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), self.arrow.clone())
            .with_projection(mask)
            .with_row_groups(vec![first.row_group])
            .with_row_selection(RowSelection::from(selection.to_vec()))
            .with_batch_size(BLOCK_ROWS)
            .build()
    }

    /// Why `bytes` of the row group of `block` did not decode.
    pub(crate) fn read_error(
        &self,
        manifest: &Manifest,
        bytes: &Source,
        block: &BlockInfo,
        source: ParquetError,
    ) -> DataError {
        if let Some(error) = bytes.take_trouble() {
            return error;
        }
        let path = manifest.files()[block.file_idx].place.shown();
        let row_group = block.row_group;
        // Bytes that do not decode may be those of another file by now.
        manifest
            .verify_file(block.file_idx)
            .err()
            .unwrap_or(DataError::Read {
                path,
                row_group,
                source,
            })
    }
}

/// The column ended early.
pub(crate) fn too_few(n_read: usize, n_wanted: usize) -> ParquetError {
    let words = format!("n_rows={n_read} were decoded where the footer says n_rows={n_wanted}");
    ParquetError::General(words)
}
