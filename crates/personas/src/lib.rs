//! Personas from evidence: names, rankings, cards and the board, as pure functions of aggregates.
//!
//! [`Evidence`] holds what was counted: sizes, exact quartiles, histograms, value totals, second choices. [`personas`] turns it
//! into [`Personas`] (`personas.json`) and [`board`] into one self-contained HTML page. Nothing here reads a file, a clock or a
//! device, and neither knows a customer: the same evidence gives the same bytes.
//!
//! # What a persona may say
//! - Nothing invented. Every line carries a [`Basis`]: measured, modelled, told by the user, or unknown.
//! - A *trait* is a feature whose mean in the group is at least [`TRAIT_THRESHOLD`] standard deviations from everyone's mean;
//!   names are built from traits, so a group near everyone is called typical rather than given an extreme.
//! - What concerns fewer than [`MINIMUM_CELL`] customers is not shown.

mod board;
mod chart;
mod describe;
mod evidence;
pub mod format;
mod naming;
mod takeaways;
mod traits;

pub use board::{BoardError, board};
pub use describe::{ClearCut, Persona, Personas, RankedBy, SecondChoice, Typical, personas};
pub use evidence::{
    Amount, Basis, CandidateFacts, ClusterEvidence, Counted, Distribution, Evidence, EvidenceError,
    FeatureEvidence, FeatureInfo, MARGIN_BINS, RunFacts, Unit, ValueInfo,
};
pub use traits::{Direction, Strength, TRAIT_THRESHOLD, Trait};

/// Customers that a shown figure must concern, at least (11: the small-cell rule of PCORnet).
pub const MINIMUM_CELL: u64 = 11;
