//! The host side of the shaders, a file for each and what they share.

pub(crate) mod assign;
pub(crate) mod plan;
pub(crate) mod remember;
pub(crate) mod transfer;
