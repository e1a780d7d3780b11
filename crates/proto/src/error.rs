//! Why something that came over the wire is refused.

use clientele_protocol::cluster::Digest;

/// What came is not a message that we would have sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WireError {
    /// No protocol buffer, or not of this type.
    #[error("{n_bytes} bytes are no {message}")]
    Malformed {
        /// What was expected.
        message: &'static str,
        /// How many came.
        n_bytes: usize,
        /// What is wrong with them.
        source: prost::DecodeError,
    },
    /// A field that must be there is not.
    #[error("`{field}` is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field has too many or too few values.
    #[error("`{field}` has {found} values where {expected} belong")]
    Shape {
        /// The field.
        field: &'static str,
        /// Values that came.
        found: usize,
        /// Values that the rest of the message asks for.
        expected: usize,
    },
    /// A number that no message of ours has there.
    #[error("`{field}` is {found}, outside of {low}..={high}")]
    Range {
        /// The field.
        field: &'static str,
        /// What came.
        found: i128,
        /// The smallest possible.
        low: i128,
        /// The largest possible.
        high: i128,
    },
    /// A text that no message of ours has there.
    #[error("`{field}` is {found:?} and must be {expected}")]
    Text {
        /// The field.
        field: &'static str,
        /// What came, shortened.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A stage names a transform that has not been sent.
    #[error("transform {hash} is not known here")]
    UnknownTransform {
        /// Its name.
        hash: Digest,
    },
    /// A transform that would leave the grid, or is not written as we write it.
    #[error("transform of {n_bytes} bytes is unusable: {reason}")]
    Transform {
        /// Length of the JSON.
        n_bytes: usize,
        /// What is wrong.
        reason: String,
    },
    /// A message that grows beyond what we would send.
    #[error("a message of {n_bytes} bytes is above the limit of {limit_bytes} bytes")]
    TooLarge {
        /// So far.
        n_bytes: usize,
        /// At most.
        limit_bytes: usize,
    },
}
