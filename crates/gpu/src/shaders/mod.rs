//! The WGSL that devices run: templates in `shaders/`, filled in for the shape at hand.
//!
//! Public for the gate that compiles every shape for hardware that is not there; no part of the backend's interface.

mod assign;
mod remember;
mod unroll;

pub use assign::{AssignShape, CLUSTER_TILE, shipped, shipped_features};
pub use remember::RememberShape;
pub use unroll::FEATURE_CHUNK;

/// `shaders/copy.wgsl`.
pub const COPY: &str = include_str!("../../../../shaders/copy.wgsl");

/// `shaders/gather.wgsl`.
pub const GATHER: &str = include_str!("../../../../shaders/gather.wgsl");

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

/// `constants`, then `template` with each line `//@ what` replaced by its unrolled text.
fn fill(constants: String, template: &str, unrolled: &unroll::Unrolled) -> String {
    let mut text = constants;
    for line in template.lines() {
        match line.trim_start().strip_prefix("//@ ") {
            None => push_line(&mut text, "", line),
            Some(what) => {
                let indent = &line[..line.len() - line.trim_start().len()];
                for inserted in unrolled.text(what).lines() {
                    push_line(&mut text, indent, inserted);
                }
            }
        }
    }
    text
}

fn push_line(text: &mut String, indent: &str, line: &str) {
    if !line.is_empty() {
        text.push_str(indent);
        text.push_str(line);
    }
    text.push('\n');
}
