//! x
/// x
pub fn propose() {}
