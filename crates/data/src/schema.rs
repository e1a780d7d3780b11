//! Which column types are numbers, which are ids, and what they are called.

use std::fmt;

use arrow::datatypes::{DataType, Schema};
use serde::{Deserialize, Serialize};

/// Type of a column that can be a feature, a value or an id. A dictionary counts as what it is a dictionary of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "the names are Arrow's, and so are the meanings"
)]
pub enum ColumnType {
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float16,
    Float32,
    Float64,
    Decimal32 { precision: u8, scale: i8 },
    Decimal64 { precision: u8, scale: i8 },
    Decimal128 { precision: u8, scale: i8 },
    Decimal256 { precision: u8, scale: i8 },
    Utf8,
    LargeUtf8,
    Utf8View,
}

/// Why a column is no feature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its type is {data_type}; features must be numeric")]
pub struct NotNumeric {
    /// Its type, as Arrow writes it.
    pub data_type: String,
}

impl ColumnType {
    /// `None` for types that are neither numbers nor text.
    pub(crate) fn from_arrow(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 => Self::Int8,
            DataType::Int16 => Self::Int16,
            DataType::Int32 => Self::Int32,
            DataType::Int64 => Self::Int64,
            DataType::UInt8 => Self::UInt8,
            DataType::UInt16 => Self::UInt16,
            DataType::UInt32 => Self::UInt32,
            DataType::UInt64 => Self::UInt64,
            DataType::Float16 => Self::Float16,
            DataType::Float32 => Self::Float32,
            DataType::Float64 => Self::Float64,
            &DataType::Decimal32(precision, scale) => Self::Decimal32 { precision, scale },
            &DataType::Decimal64(precision, scale) => Self::Decimal64 { precision, scale },
            &DataType::Decimal128(precision, scale) => Self::Decimal128 { precision, scale },
            &DataType::Decimal256(precision, scale) => Self::Decimal256 { precision, scale },
            DataType::Utf8 => Self::Utf8,
            DataType::LargeUtf8 => Self::LargeUtf8,
            DataType::Utf8View => Self::Utf8View,
            DataType::Dictionary(_, values) => return Self::from_arrow(values),
            _ => return None,
        })
    }

    /// Arrow's type for the column, without a dictionary.
    pub fn to_arrow(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int8 => DataType::Int8,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::UInt8 => DataType::UInt8,
            Self::UInt16 => DataType::UInt16,
            Self::UInt32 => DataType::UInt32,
            Self::UInt64 => DataType::UInt64,
            Self::Float16 => DataType::Float16,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal32 { precision, scale } => DataType::Decimal32(precision, scale),
            Self::Decimal64 { precision, scale } => DataType::Decimal64(precision, scale),
            Self::Decimal128 { precision, scale } => DataType::Decimal128(precision, scale),
            Self::Decimal256 { precision, scale } => DataType::Decimal256(precision, scale),
            Self::Utf8 => DataType::Utf8,
            Self::LargeUtf8 => DataType::LargeUtf8,
            Self::Utf8View => DataType::Utf8View,
        }
    }

    /// Whether every number of the type is one of `f32`.
    pub(crate) fn fits_f32(self) -> bool {
        matches!(
            self,
            Self::Boolean
                | Self::Int8
                | Self::Int16
                | Self::UInt8
                | Self::UInt16
                | Self::Float16
                | Self::Float32
        )
    }

    /// Whether the column is text.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Utf8 | Self::LargeUtf8 | Self::Utf8View)
    }

    /// Whether the column can be a feature or a value.
    pub fn is_numeric(self) -> bool {
        !self.is_text()
    }

    /// Whether the column can be an id.
    pub fn is_id(self) -> bool {
        let is_integer = matches!(
            self,
            Self::Int8
                | Self::Int16
                | Self::Int32
                | Self::Int64
                | Self::UInt8
                | Self::UInt16
                | Self::UInt32
                | Self::UInt64
        );
        is_integer || self.is_text()
    }

    /// Whether two files with these types in one column can be read as one table. The Arrow text types differ only in memory.
    pub(crate) fn agrees_with(self, other: Self) -> bool {
        self == other || (self.is_text() && other.is_text())
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_arrow().fmt(f)
    }
}

/// Names in `schema` that look like `name`, most similar first, at most three.
pub(crate) fn nearest_names(schema: &Schema, name: &str) -> Vec<String> {
    let wanted = name.to_lowercase();
    let mut scored: Vec<(usize, &str)> = schema
        .fields()
        .iter()
        .filter_map(|field| {
            let known = field.name().to_lowercase();
            let distance = strsim::damerau_levenshtein(&known, &wanted);
            let is_near = distance <= (name.chars().count() / 3).max(2);
            // `customer` for `customer_id`: a word left out is many letters away, and yet near.
            let is_part =
                !wanted.is_empty() && (known.contains(&wanted) || wanted.contains(&known));
            (is_near || is_part).then_some((distance, field.name().as_str()))
        })
        .collect();
    scored.sort_unstable();
    scored
        .iter()
        .take(3)
        .map(|(_, name)| (*name).to_owned())
        .collect()
}
