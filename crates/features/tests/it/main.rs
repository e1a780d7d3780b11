//! One binary, so that the engine is linked once.

mod common;
mod errors;
mod features;
mod init;
mod retail;
mod same_bytes;
