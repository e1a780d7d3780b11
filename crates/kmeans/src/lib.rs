//! Grid k-means: k-means defined in integers, so that every machine gives the same answer.
//!
//! Rows are points of an integer grid (`|q| < 2^22`), distances are exact integers, sums have no order. A backend may be as
//! fast and sloppy as it likes as long as it proves which rows it is sure of and settles the others exactly; `reference`
//! is the definition that all of them are compared with, by equality.
//!
//! # Vocabulary
//! scikit-learn's words, with scikit-learn's meanings.
//! - `n_clusters`, `n_features`, `n_rows`: counts. `k` and `d` appear in formulas only.
//! - `label`: the index of the nearest centroid; ties go to the lowest index.
//! - `inertia`: the sum over rows of the squared distance to the nearest centroid, in grid steps squared unless said otherwise.
//! - `center_shift`: the sum over centroids of the squared distance they moved in an update.
//! - `n_iter`: assignment-and-update rounds, the one that finds nothing moves included.
//! - *block*: up to [`BLOCK_ROWS`] rows, the unit of compute. *Candidate*: one (n_clusters, restart) model being fitted.
//! - *partial*: the counts and sums that a pass over some rows returns for one candidate; partials add up in any order.
//! - *row key*: 64 bits of hash of the customer id; with the row itself it orders rows wherever an order is needed.

//!
//! # The life of one fit
//! [`seeding::Seeding`] asks for races over all rows until it has enough candidate rows; [`seeding::recluster`] turns them into
//! the start of each candidate; [`lloyd::Candidate`] asks for passes ([`Backend::pass`]), now and then for far rows
//! ([`relocate::FarthestRows`]), until it stops; [`quality`] compares what came out. All of it is pure: the caller moves the rows.

mod backend;
mod best_rows;
mod block;
mod centroids;
pub mod cpu;
pub mod exact;
mod frame;
pub mod lloyd;
mod partial;
mod permute;
pub mod quality;
pub mod reference;
pub mod relocate;
pub mod seeding;
mod split;
mod tiles;
mod to_grid;
mod totals;

pub use backend::{Backend, BackendError, BlockLabels};
pub use block::{Block, BlockError, TileRoom};
pub use centroids::Centroids;
pub use frame::{CutRows, Fragment, Frame, Outline};
pub use partial::Partial;
pub use tiles::Tiles;
pub use to_grid::{PutOnGrid, strips};
pub use totals::Totals;

/// Names the arithmetic of this crate; part of every model hash. Changes whenever any bit of any answer may change.
pub const ALGORITHM_VERSION: &str = "grid-kmeans-1";

/// Grid values are below this in magnitude, so that a value and a difference of two values are exact in `f32`.
pub const GRID_LIMIT: i32 = 1 << 22;

/// Rows of a block, at most.
pub const BLOCK_ROWS: usize = 65_536;

/// Rows that lie interleaved in a block: one cache line of `f32` a feature.
pub const LANES: usize = 16;

/// Clusters of a model, at most; labels are `u16`.
pub const MAX_CLUSTERS: usize = 4_096;

/// Rows of a job, at most: keeps `n_rows^2 x n_features x 2^44`, the largest integer of the quality measures, below 2^127.
pub const MAX_ROWS: u64 = 1 << 35;

/// Features of a model, at most; keeps every squared distance below 2^58.
pub const MAX_FEATURES: usize = 4_096;

/// A grid value as an integer, in one addition: the sum's last bit is worth one. A cast would ask after NaN.
#[inline(always)]
pub(crate) fn whole(value: f32) -> i32 {
    const ROUNDER: f32 = 12_582_912.0;
    (value + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32
}
