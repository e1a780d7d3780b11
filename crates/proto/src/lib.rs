//! The wire: what is generated from `proto/`, and the way between it and the plain types of `clientele-protocol`. No other crate
//! knows a generated message.
//!
//! Whatever bytes arrive, decoding ends in a domain type that holds what it promises, or in a [`WireError`]: shapes, values on the
//! grid and limits are checked here and nowhere else.

mod answer;
mod check;
pub mod connection;
mod error;
mod frames;
mod jobs;
mod messages;
pub mod security;
mod stage;
pub mod status;
mod transform;
mod wide;

pub use answer::{MAX_HISTOGRAM_CELLS, answer_digest, decode_answer, encode_answer};
pub use check::run_name;
pub use error::WireError;
pub use frames::{Assembler, FRAME_BYTES, MAX_MESSAGE_BYTES, frames};
pub use messages::{
    decode_coordinator_message, decode_record, decode_worker_message, encode_coordinator_message,
    encode_record, encode_worker_message,
};
pub use stage::{decode_stage, encode_stage};

/// Generated; documented in `proto/clientele/v1`.
#[allow(
    missing_docs,
    clippy::large_enum_variant,
    reason = "generated: the proto files have the words, and most messages are replies"
)]
pub mod v1 {
    tonic::include_proto!("clientele.v1");
}

/// The encoded descriptors of everything in `proto/`, for reflection and for tests.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
