//! The host side of each shader, under the shader's name.

pub(crate) mod answer;
pub(crate) mod assign;
pub(crate) mod plan;
mod transfer;
