//! A raw table before the engine sees it: its files, their schemas, and the columns that must agree in all of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use clientele_data::{BadFile, input};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use crate::error::{FeatureError, TypeInFile, nearest};

/// A table of one or more Parquet files, footers read.
#[derive(Debug)]
pub(crate) struct Table {
    /// Its name in the config and in SQL.
    pub name: &'static str,
    /// Its files, sorted.
    pub files: Vec<PathBuf>,
    /// The schema of each file.
    schemas: Vec<SchemaRef>,
    /// Rows of all files together.
    pub n_rows: u64,
}

impl Table {
    /// Finds the files and reads all footers; every unreadable file is reported, not only the first.
    pub fn open(name: &'static str, paths: &[String]) -> Result<Self, FeatureError> {
        let files = input::expand(paths).map_err(|e| FeatureError::Files {
            table: name,
            source: Box::new(e),
        })?;
        let mut table = Self {
            name,
            files: Vec::new(),
            schemas: Vec::new(),
            n_rows: 0,
        };
        let mut bad = Vec::new();
        for path in &files {
            match read_footer(path) {
                Ok((schema, n_rows)) => {
                    table.schemas.push(schema);
                    table.n_rows += n_rows;
                }
                Err(reason) => bad.push(BadFile {
                    path: path.clone(),
                    reason,
                }),
            }
        }
        let n_files = files.len();
        table.files = files;
        if !bad.is_empty() {
            return Err(FeatureError::BadFiles {
                table: name,
                n_files,
                bad,
            });
        }
        if table.n_rows == 0 {
            return Err(FeatureError::NoRows {
                table: name,
                n_files,
            });
        }
        Ok(table)
    }

    /// The schema of the first file; other files have at least the columns that were asked for.
    pub fn schema(&self) -> &SchemaRef {
        &self.schemas[0]
    }

    /// The schema of each file, in the order of `files`.
    pub fn schemas(&self) -> impl Iterator<Item = &Schema> {
        self.schemas.iter().map(AsRef::as_ref)
    }

    /// The column, when every file has it and with the same type.
    pub fn column(&self, column: &str) -> Result<&Field, FeatureError> {
        let mut first: Option<&Field> = None;
        for (schema, file) in self.schemas.iter().zip(&self.files) {
            let field = schema.field_with_name(column).map_err(|_| {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                FeatureError::MissingColumn {
                    table: self.name,
                    column: column.to_owned(),
                    file: file.clone(),
                    nearest: nearest(column, names),
                }
            })?;
            let first = *first.get_or_insert(field);
            if field.data_type() != first.data_type() {
                let type_in = |file: &Path, field: &Field| {
                    let (file, data_type) = (file.to_owned(), field.data_type().to_string());
                    Box::new(TypeInFile { file, data_type })
                };
                return Err(FeatureError::MixedTypes {
                    table: self.name,
                    column: column.to_owned(),
                    first: type_in(&self.files[0], first),
                    other: type_in(file, field),
                });
            }
        }
        // Tables are opened with at least one file.
        Ok(first.unwrap_or_else(|| self.schemas[0].field(0)))
    }

    /// The column, when its type also suits the role.
    pub fn column_as(&self, column: &str, role: ColumnRole) -> Result<&Field, FeatureError> {
        let field = self.column(column)?;
        if role.suits(field.data_type()) {
            return Ok(field);
        }
        Err(FeatureError::ColumnType {
            table: self.name,
            column: column.to_owned(),
            role: role.name(),
            found: field.data_type().to_string(),
            wanted: role.wanted(),
        })
    }

    /// Names of the columns of the first file that `other` does not have.
    pub fn columns_beyond(&self, other: &Table) -> Vec<String> {
        let taken: BTreeSet<&String> = other.schema().fields().iter().map(|f| f.name()).collect();
        let names = self.schema().fields().iter().map(|field| field.name());
        names
            .filter(|name| !taken.contains(name))
            .cloned()
            .collect()
    }
}

/// The schema and the number of rows, or what is wrong with the file.
fn read_footer(path: &Path) -> Result<(SchemaRef, u64), String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
        .map_err(|e| format!("not a readable Parquet file: {e}"))?;
    let n_rows = u64::try_from(footer.metadata().file_metadata().num_rows())
        .map_err(|_| "its footer counts fewer than 0 rows".to_owned())?;
    Ok((footer.schema().clone(), n_rows))
}

/// What a column is used as, where that limits its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnRole {
    Customer,
    Timestamp,
    Money,
    Key,
}

impl ColumnRole {
    /// Whether a column of this type can play the role.
    pub fn suits(self, data_type: &DataType) -> bool {
        match self {
            Self::Customer => {
                let value_type = value_type(data_type);
                value_type.is_integer() || is_text(value_type)
            }
            Self::Timestamp => matches!(
                data_type,
                DataType::Date32 | DataType::Date64 | DataType::Timestamp(..)
            ),
            Self::Money => data_type.is_numeric(),
            Self::Key => !data_type.is_nested() && !data_type.is_floating(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Timestamp => "timestamp",
            Self::Money => "money",
            Self::Key => "key",
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Customer => "an integer or text",
            Self::Timestamp => "a date or a timestamp",
            Self::Money => "a number",
            Self::Key => "an integer, text, a date or a decimal",
        }
    }
}

/// The type of the values, for a column that may be dictionary-encoded.
pub(crate) fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}

/// Whether values of the type are text.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}
