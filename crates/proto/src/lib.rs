//! The wire: what is generated from `proto/`, and the way between it and the plain types of `clientele-protocol`. No other crate
//! knows a generated message.

pub mod connection;
pub mod security;

/// Generated; documented in `proto/clientele/v1`.
#[allow(missing_docs, reason = "the proto files have the words")]
pub mod v1 {
    tonic::include_proto!("clientele.v1");
}

/// The encoded descriptors of everything in `proto/`, for reflection and for tests.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
