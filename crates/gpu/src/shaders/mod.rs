//! The WGSL that devices run: templates in `shaders/`, filled in for the shape at hand.
//!
//! Public for the gate that compiles every shape for hardware that is not there; no part of the backend's interface.

mod assign;
mod unroll;

pub use assign::{AssignShape, CLUSTER_TILE, shipped};
pub use unroll::FEATURE_CHUNK;

/// `shaders/copy.wgsl`.
pub const COPY: &str = include_str!("../../../../shaders/copy.wgsl");

/// `shaders/multiply_add.wgsl`.
pub const MULTIPLY_ADD: &str = include_str!("../../../../shaders/multiply_add.wgsl");

/// A mistake that is built into a shader on purpose, so that tests see that they would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Every row counts as certain.
    NoDoubt,
    /// Sums lose what they carry from the low half to the high one.
    NoCarry,
    /// Scores are `sum (x - c)^2`, which costs an instruction more a feature.
    DifferenceForm,
}
