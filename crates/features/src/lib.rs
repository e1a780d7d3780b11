//! Retail tables to one feature table: transactions and products in Parquet become one row a customer, as SQL on DataFusion.
//!
//! [`Config`] says where the tables are and what their columns mean, [`build`] writes `features.parquet` sorted by customer,
//! [`propose`] writes the first draft of a config from the schemas it finds.
//!
//! # The same bytes from any machine
//! Money becomes DECIMAL before it is added, and only sums, counts and extremes of integers and decimals are aggregated: none
//! depends on the order of rows, on files or on threads. A share or a mean is one division of two such numbers, a customer at a
//! time, at the very end.
//!
//! # A new feature
//! One file under `blocks/` and one line in `blocks/mod.rs`.

mod blocks;
mod build;
mod config;
mod dictionary;
mod error;
mod init;
mod plan;
mod session;
mod sql;
mod tables;
mod write;

pub use build::{BuildOptions, build};
pub use clientele_data::ErrorKind;
pub use config::{
    Activity, Config, FeatureChoice, FitSettings, PersonaSettings, ProductTable, Tables,
    TransactionTable,
};
pub use dictionary::{CustomerCounts, FeatureEntry, FeatureTable, LineCounts, Unit};
pub use error::{FeatureError, TypeInFile};
pub use init::propose;
