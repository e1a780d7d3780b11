//! The coordinator of a run: owns all its state, holds no customer row, computes on none.
//!
//! [`fit`] knows the algorithm's order of questions, [`schedule`] knows who answers which part, [`machine`] joins them into
//! one `step(event, now) -> actions` without threads, sockets or clocks, and [`drive`] runs that over real channels.

mod candidates;
pub mod cluster;
pub mod drive;
pub mod fit;
pub mod halving;
pub mod machine;
pub mod model;
pub mod schedule;
pub mod server;

use clientele_data::{DataError, ErrorKind};
use clientele_protocol::{Mismatch, SpecError, TaskError};

/// Why a run ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// What was asked makes no sense, or is too much.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The data do not allow it.
    #[error("{0}")]
    Input(String),
    /// Beyond what a run may hold.
    #[error("{0}")]
    Limit(String),
    /// Statistics ended the run.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A worker could not answer.
    #[error(transparent)]
    Task(TaskError),
    /// Workers die of one part of the data.
    #[error("{} workers in a row died on {place}", schedule::MAX_DEATHS)]
    Poisonous {
        /// File and row group.
        place: String,
    },
    /// Two workers answered one question differently.
    #[error("two workers give different answers for {place}: one of them computes wrongly")]
    Differs {
        /// File and row group of the first row.
        place: String,
    },
    /// Nobody is left to compute.
    #[error("no worker is left: {reason}")]
    NoWorkers {
        /// What ended the last one.
        reason: String,
    },
    /// A worker answered another question than it was asked.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// An invariant does not hold.
    #[error("internal error: {0}")]
    Bug(String),
}

impl FitError {
    /// The class that decides the exit code; `None` for a bug.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Spec(SpecError::Usage(_)) => Some(ErrorKind::Usage),
            Self::Spec(SpecError::Limit(_)) => Some(ErrorKind::Limit),
            Self::Input(_) => Some(ErrorKind::Input),
            Self::Limit(_) => Some(ErrorKind::Limit),
            Self::Data(error) => Some(error.kind()),
            Self::Task(error) => Some(error.kind),
            Self::Poisonous { .. } | Self::NoWorkers { .. } => Some(ErrorKind::Transient),
            Self::Differs { .. } | Self::Mismatch(_) | Self::Bug(_) => None,
        }
    }

    /// A way out, if one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(error) => error.hint(),
            Self::Task(error) => error.hint.clone(),
            Self::Input(fact) if fact.starts_with("customer ids") => {
                Some("one row a customer is expected; aggregate first, for instance with `clientele run`".into())
            }
            Self::Limit(_) | Self::Spec(SpecError::Limit(_)) => {
                Some("ask for fewer personas with --k, or for fewer --restarts".into())
            }
            _ => None,
        }
    }
}

/// Whole milliseconds.
fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
