//! `shaders/remember.wgsl` for a number of features.

use super::assign::MAX_REGISTER_FEATURES;
use super::unroll::{Rows, Tracked, Unrolled};
use super::{Flaw, fill};

/// Rows of a tile of [`clientele_kmeans::Block`]; an invocation has one of them.
const LINE: usize = clientele_kmeans::LANES;

/// Above this, registers are better spent on subgroups.
const MAX_OWN_BIASES_FEATURES: usize = 48;

/// What the shader that remembers is generated and compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RememberShape {
    /// Values of a row.
    pub n_features: usize,
}

impl RememberShape {
    /// Rows of a workgroup, at most, whose changes of sums stay below 2^31.
    pub const GROUP_ROWS: usize = 512;

    /// Whether an invocation keeps the values of a row in registers.
    pub fn is_in_registers(&self) -> bool {
        self.n_features <= MAX_REGISTER_FEATURES
    }

    /// The text, one entry point named `remember`.
    pub fn wgsl(&self) -> String {
        self.fill(TEMPLATE, None)
    }

    /// The text with a mistake in it.
    pub fn wgsl_with(&self, flaw: Flaw) -> String {
        let (right, wrong) = match flaw {
            Flaw::NoDoubt => ("{ return NO_LABEL; }", "{ }"),
            Flaw::NoCarry => (" + carry;", ";"),
            Flaw::DifferenceForm => return self.fill(TEMPLATE, Some(flaw)),
        };
        assert!(TEMPLATE.contains(right), "the template has no `{right}`");
        self.fill(&TEMPLATE.replace(right, wrong), Some(flaw))
    }

    fn fill(&self, template: &str, flaw: Option<Flaw>) -> String {
        let unrolled = Unrolled {
            n_features: self.n_features,
            lanes: 1,
            line: LINE,
            rows: match self.is_in_registers() {
                true => Rows::InRegisters,
                false => Rows::InStorage,
            },
            wants_labels: false,
            reads_own_biases: self.n_features <= MAX_OWN_BIASES_FEATURES,
            tracked: Tracked::Second,
            is_difference: flaw == Some(Flaw::DifferenceForm),
        };
        let constants = format!(
            "// Generated for {n} features from shaders/remember.wgsl.\n\
             const N_FEATURES = {n}u;\n\
             const LINE = {LINE}u;\n\
             alias Rows = f32;\n\n",
            n = self.n_features,
        );
        fill(constants, template, &unrolled)
    }
}

const TEMPLATE: &str = include_str!("../../../../shaders/remember.wgsl");
