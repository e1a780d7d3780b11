//! Small shops, and the way from a config to a table that can be looked at.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use arrow::util::display::array_value_to_string;
use clientele_features::{BuildOptions, Config, FeatureError, FeatureTable, build};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

/// Writes a Parquet file with these columns.
pub fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    write_batch(
        path,
        &RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
            .unwrap(),
    );
}

/// Writes a Parquet file with these rows.
pub fn write_batch(path: &Path, batch: &RecordBatch) {
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// All rows of a Parquet file.
pub fn read(path: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

pub fn column<A: Array + 'static>(values: A) -> ArrayRef {
    Arc::new(values)
}

/// A folder with tables and the text of a config for them.
pub struct Shop {
    pub folder: TempDir,
    pub toml: String,
}

impl Shop {
    /// A shop with no tables yet.
    pub fn new(toml: &str) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            toml: toml.to_owned(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> Config {
        Config::from_toml(&self.toml, self.folder.path()).unwrap()
    }

    pub fn build(&self) -> Result<FeatureTable, FeatureError> {
        build(&self.config(), &self.path("out"), &BuildOptions::default())
    }

    /// The error of a shop that must not come to a table.
    pub fn error(&self) -> FeatureError {
        let error = self.build().expect_err("there is a feature table");
        assert!(
            !self.path("out/features.parquet").exists(),
            "an error left a table"
        );
        error
    }
}

/// The value of one customer's feature as text; empty for null.
pub fn value(table: &FeatureTable, customer: &str, feature: &str) -> String {
    let rows = read(&table.path);
    let ids = rows.column_by_name(&table.id_column).unwrap();
    let row = (0..rows.num_rows())
        .find(|row| array_value_to_string(ids, *row).unwrap() == customer)
        .unwrap_or_else(|| panic!("no customer {customer}"));
    array_value_to_string(rows.column_by_name(feature).unwrap(), row).unwrap()
}

/// All customers, in the order of the file.
pub fn customers(table: &FeatureTable) -> Vec<String> {
    let rows = read(&table.path);
    let ids = rows.column_by_name(&table.id_column).unwrap();
    (0..rows.num_rows())
        .map(|row| array_value_to_string(ids, row).unwrap())
        .collect()
}

/// The sum of a column: exact for integers and decimals (in units of its scale), in order for floats.
pub enum Sum {
    Exact(i128),
    Float(f64),
}

pub fn sum(rows: &RecordBatch, feature: &str) -> Sum {
    let column = rows.column_by_name(feature).unwrap();
    match column.data_type() {
        DataType::Int64 => Sum::Exact(
            column
                .as_primitive::<Int64Type>()
                .iter()
                .flatten()
                .map(i128::from)
                .sum(),
        ),
        DataType::Decimal128(..) => Sum::Exact(
            column
                .as_primitive::<Decimal128Type>()
                .iter()
                .flatten()
                .sum(),
        ),
        DataType::Float64 => {
            Sum::Float(column.as_primitive::<Float64Type>().iter().flatten().sum())
        }
        other => panic!("{feature} is {other}"),
    }
}
