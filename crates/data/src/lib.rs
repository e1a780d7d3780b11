//! From Parquet files to blocks of rows on the grid. Knows files, columns and numbers; never clusters.
//!
//! The life of a table: [`input::expand`] finds the files, [`manifest::Manifest::plan`] pins them and cuts them into blocks and
//! shards, [`stats::StatsPlanner`] asks for statistics in rounds and freezes a [`transform::Transform`], and [`ingest`] puts the
//! rows on the grid. [`store::BlockStore`] keeps them, in memory or spilled; [`run_dir::RunDir`] is where results go.
//!
//! Files are on a disk or in an object store: [`Stores`] knows the stores by alias, a [`Location`] is a file in one, a [`Folder`] a
//! folder of a run. Calls to object stores block the calling thread; never make them from async code.
//!
//! Everything that a shard answers is made of integers and order statistics, so neither the order of rows nor the way they are
//! cut into files, row groups, blocks and shards can change it.

pub mod ascending;
pub mod budget;
mod checksum;
mod column;
mod decode;
pub mod duplicates;
mod error;
mod folder;
mod grid;
pub mod ids;
pub mod ingest;
pub mod input;
mod location;
mod log1p;
pub mod manifest;
pub mod memory;
mod objects;
mod open_file;
mod positioned;
pub mod read;
pub mod run_dir;
mod schema;
pub mod short_hash;
mod source;
mod spill;
pub mod stats;
pub mod store;
mod stores;
mod threads;
pub mod tiles;
pub mod transform;
pub mod vectors;

pub use error::{BadFile, Change, ColumnCount, DataError, ErrorKind};
pub use folder::{Created, Folder, NewFile};
pub use location::Location;
pub use manifest::{BlockId, Columns, Manifest, NullPolicy, ShardId, TableSpec};
pub use schema::{ColumnType, NotNumeric};
pub use stores::Stores;

/// BLAKE3 of a value's JSON.
fn hash_json(value: &impl serde::Serialize) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    serde_json::to_writer(&mut hasher, value).expect("plain structs of numbers and texts are JSON");
    hasher.finalize()
}
