//! From what the user asks for to files and columns that all fit together.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use clientele_kmeans::MAX_FEATURES;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;

use super::{Column, Columns, FileInfo, Pinned, TableSpec};
use crate::input::Place;
use crate::schema::{ColumnType, NotNumeric, nearest_names};
use crate::source::{Footer, Source, Unusable};
use crate::stores::Stores;
use crate::{BadFile, DataError, threads};

/// Opens all files and finds the columns in each.
pub(super) fn resolve(
    spec: &TableSpec,
    places: Vec<Place>,
    stores: &Stores,
) -> Result<Pinned, DataError> {
    let opened = open_all(&places, stores)?;
    let (path, schema) = (&opened[0].info.place.shown(), &opened[0].schema);
    let id = match &spec.id {
        Some(name) => Some(id_column(path, schema, name)?),
        None => None,
    };
    let value = match &spec.value {
        Some(name) => Some(value_column(path, schema, name)?),
        None => None,
    };
    let features = feature_columns(path, schema, spec)?;
    for file in &opened[1..] {
        for column in features.iter().chain(&id).chain(&value) {
            check_column(file, column, path)?;
        }
    }
    let files = opened.into_iter().map(|file| file.info).collect();
    // Rows are counted when they are cut.
    Ok(Pinned {
        n_rows: 0,
        id,
        value,
        nulls: spec.nulls,
        features,
        files,
    })
}

/// A file at planning time.
struct Opened {
    info: FileInfo,
    schema: SchemaRef,
}

fn open_all(places: &[Place], stores: &Stores) -> Result<Vec<Opened>, DataError> {
    let is_local = matches!(places.first(), Some(Place::Path(_)));
    // A store takes its time for each file.
    let n_threads = if is_local { 1 } else { 16 };
    let answers = threads::map(n_threads, places, |place| match open(place, stores) {
        Ok(file) => Ok(Ok(file)),
        Err(Unusable::File(reason)) => Ok(Err(BadFile {
            path: place.shown(),
            reason,
        })),
        Err(Unusable::Way(error)) => Err(error),
    })?;
    let (mut opened, mut files) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(file) => opened.push(file),
            Err(bad) => files.push(bad),
        }
    }
    match files.is_empty() {
        true => Ok(opened),
        false => Err(DataError::BadFiles {
            files,
            n_files: places.len(),
        }),
    }
}

fn open(place: &Place, stores: &Stores) -> Result<Opened, Unusable> {
    if place.shown().to_str().is_none() {
        return Err(Unusable::File("its name is not UTF-8".to_owned()));
    }
    let source = Source::open(place, stores, None)?;
    let footer = source.footer()?;
    let row_groups: Result<Vec<u64>, _> = footer
        .metadata
        .row_groups()
        .iter()
        .map(|group| u64::try_from(group.num_rows()))
        .collect();
    let row_groups = row_groups
        .map_err(|_| Unusable::File("a row group has a negative number of rows".to_owned()))?;
    let info = FileInfo {
        place: place.clone(),
        size_bytes: source.size_bytes(),
        modified_ns: source.modified_ns(),
        etag: source.etag().map(str::to_owned),
        footer_hash: footer.hash.to_hex().to_string(),
        row_groups,
    };
    let arrow = arrow_metadata(&footer)
        .map_err(|error| Unusable::File(format!("its schema is damaged: {error}")))?;
    Ok(Opened {
        info,
        schema: arrow.schema().clone(),
    })
}

pub(crate) fn arrow_metadata(footer: &Footer) -> Result<ArrowReaderMetadata, ParquetError> {
    ArrowReaderMetadata::try_new(Arc::clone(&footer.metadata), ArrowReaderOptions::new())
}

fn feature_columns(
    path: &Path,
    schema: &Schema,
    spec: &TableSpec,
) -> Result<Vec<Column>, DataError> {
    let features = match &spec.columns {
        Columns::Named(names) => named_features(path, schema, names, spec.id.as_deref())?,
        Columns::AllNumeric => numeric_columns(schema, spec.id.as_deref()),
    };
    if features.is_empty() {
        return Err(DataError::NoFeatures { path: path.into() });
    }
    if features.len() > MAX_FEATURES {
        let (found, limit) = (features.len() as u64, MAX_FEATURES as u64);
        return Err(DataError::TooMany {
            what: "n_features",
            found,
            limit,
        });
    }
    Ok(features)
}

fn named_features(
    path: &Path,
    schema: &Schema,
    names: &[String],
    id: Option<&str>,
) -> Result<Vec<Column>, DataError> {
    let mut seen = BTreeSet::new();
    let mut features = Vec::with_capacity(names.len());
    for name in names {
        if !seen.insert(name) {
            return Err(DataError::ColumnTwice {
                column: name.clone(),
            });
        }
        if id == Some(name) {
            return Err(DataError::IdIsFeature {
                column: name.clone(),
            });
        }
        features.push(
            numeric_column(path, schema, name).map_err(|error| match error {
                Unfit::Missing(error) => error,
                Unfit::NotNumeric(source) => {
                    let others = numeric_columns(schema, id).into_iter().take(3);
                    let numeric = others.map(|column| column.name).collect();
                    DataError::NotAFeature {
                        column: name.clone(),
                        source,
                        numeric,
                    }
                }
            })?,
        );
    }
    Ok(features)
}

fn numeric_columns(schema: &Schema, id: Option<&str>) -> Vec<Column> {
    let fields = schema
        .fields()
        .iter()
        .filter(|field| Some(field.name().as_str()) != id);
    fields
        .filter_map(|field| {
            let column_type = ColumnType::from_arrow(field.data_type())?;
            column_type.is_numeric().then(|| Column {
                name: field.name().clone(),
                column_type,
            })
        })
        .collect()
}

enum Unfit {
    Missing(DataError),
    NotNumeric(NotNumeric),
}

fn numeric_column(path: &Path, schema: &Schema, name: &str) -> Result<Column, Unfit> {
    let data_type = find(path, schema, name).map_err(Unfit::Missing)?;
    match ColumnType::from_arrow(data_type) {
        Some(column_type) if column_type.is_numeric() => Ok(Column {
            name: name.to_owned(),
            column_type,
        }),
        _ => Err(Unfit::NotNumeric(NotNumeric {
            data_type: data_type.to_string(),
        })),
    }
}

fn value_column(path: &Path, schema: &Schema, name: &str) -> Result<Column, DataError> {
    numeric_column(path, schema, name).map_err(|error| match error {
        Unfit::Missing(error) => error,
        Unfit::NotNumeric(source) => DataError::NotAValue {
            column: name.to_owned(),
            source,
        },
    })
}

fn id_column(path: &Path, schema: &Schema, name: &str) -> Result<Column, DataError> {
    let data_type = find(path, schema, name)?;
    match ColumnType::from_arrow(data_type) {
        Some(column_type) if column_type.is_id() => Ok(Column {
            name: name.to_owned(),
            column_type,
        }),
        _ => Err(DataError::NotAnId {
            column: name.to_owned(),
            data_type: data_type.to_string(),
        }),
    }
}

fn find<'a>(path: &Path, schema: &'a Schema, name: &str) -> Result<&'a DataType, DataError> {
    match schema.fields().find(name) {
        Some((_, field)) => Ok(field.data_type()),
        None => Err(DataError::MissingColumn {
            column: name.to_owned(),
            path: path.into(),
            nearest: nearest_names(schema, name),
        }),
    }
}

fn check_column(file: &Opened, column: &Column, first_path: &Path) -> Result<(), DataError> {
    let data_type = find(&file.info.place.shown(), &file.schema, &column.name)?;
    let found = ColumnType::from_arrow(data_type);
    if found.is_some_and(|found| column.column_type.agrees_with(found)) {
        return Ok(());
    }
    Err(DataError::ColumnTypeDiffers {
        column: column.name.clone(),
        path: file.info.place.shown(),
        found: data_type.to_string(),
        expected_path: first_path.into(),
        expected: column.column_type.to_string(),
    })
}
