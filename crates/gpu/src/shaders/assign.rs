//! `shaders/assign.wgsl` for a number of features.

use super::Flaw;
use super::fill;
use super::unroll::{Rows, Tracked, Unrolled};

/// Centroids that a row is compared with in one sweep over the features; what is left over may be half as many.
pub const CLUSTER_TILE: usize = 8;

/// Rows of a tile of [`clientele_kmeans::Block`].
const TILE_ROWS: usize = clientele_kmeans::LANES;

/// Above this, the values of two rows leave no room for ten subgroups in the register file of a SIMD unit of RDNA 2.
const MAX_PAIR_FEATURES: usize = 32;

/// Above this, the values of even one row no longer fit the registers of an invocation.
pub(super) const MAX_REGISTER_FEATURES: usize = 64;

/// What the assignment shader is generated and compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssignShape {
    /// Values of a row.
    pub n_features: usize,
    /// Whether each row's label is written.
    pub wants_labels: bool,
}

impl AssignShape {
    /// Whether an invocation keeps the values of its rows in registers; otherwise it reads them anew for each tile of clusters.
    pub fn is_in_registers(&self) -> bool {
        self.n_features <= MAX_REGISTER_FEATURES
    }

    /// Rows of an invocation: as many as its registers hold. Each value of a centroid that is read serves all of them.
    pub fn lanes(&self) -> usize {
        match self.n_features {
            ..=MAX_PAIR_FEATURES => 2,
            _ if self.is_in_registers() => 1,
            _ => 4,
        }
    }

    /// Invocations of a workgroup.
    pub fn invocations(&self) -> usize {
        if self.lanes() == 4 { 128 } else { 256 }
    }

    /// Rows of a workgroup: at most 512, whose sums of grid values stay below 2^31.
    pub fn group_rows(&self) -> usize {
        self.lanes() * self.invocations()
    }

    /// Invocations that hand over the sums of one cluster together.
    pub fn flush_lanes(&self) -> usize {
        self.n_features.next_power_of_two().clamp(4, 64)
    }

    /// The text, one entry point named `assign`.
    pub fn wgsl(&self) -> String {
        self.fill(TEMPLATE, None)
    }

    /// The text with a mistake in it.
    pub fn wgsl_with(&self, flaw: Flaw) -> String {
        let (right, wrong) = match flaw {
            Flaw::NoDoubt => ("& !doubt", "& !Flags(false)"),
            Flaw::NoCarry => (" + carry;", ";"),
            Flaw::DifferenceForm => return self.fill(TEMPLATE, Some(flaw)),
        };
        assert!(TEMPLATE.contains(right), "the template has no `{right}`");
        self.fill(&TEMPLATE.replace(right, wrong), Some(flaw))
            .replace(
                "is_row & doubt",
                match flaw {
                    Flaw::NoDoubt => "is_row & Flags(false)",
                    _ => "is_row & doubt",
                },
            )
    }

    fn fill(&self, template: &str, flaw: Option<Flaw>) -> String {
        let unrolled = Unrolled {
            n_features: self.n_features,
            lanes: self.lanes(),
            line: TILE_ROWS / self.lanes(),
            rows: if self.is_in_registers() {
                Rows::InRegisters
            } else {
                Rows::InStorage
            },
            wants_labels: self.wants_labels,
            reads_own_biases: self.lanes() == 2,
            tracked: Tracked::Doubt,
            is_difference: flaw == Some(Flaw::DifferenceForm),
        };
        fill(self.constants(), template, &unrolled)
    }

    fn constants(&self) -> String {
        let lanes = self.lanes();
        let vector = |component: &str| match lanes {
            1 => component.to_owned(),
            _ => format!("vec{lanes}<{component}>"),
        };
        format!(
            "// Generated for {} features from shaders/assign.wgsl.\n\
             const N_FEATURES = {}u;\n\
             const LANES = {lanes}u;\n\
             const LINE = {}u;\n\
             const INVOCATIONS = {}u;\n\
             const FLUSH_LANES = {}u;\n\
             alias Rows = {};\n\
             alias Flags = {};\n\
             alias Indices = {};\n\n",
            self.n_features,
            self.n_features,
            TILE_ROWS / lanes,
            self.invocations(),
            self.flush_lanes(),
            vector("f32"),
            vector("bool"),
            vector("u32"),
        )
    }
}

const TEMPLATE: &str = include_str!("../../../../shaders/assign.wgsl");

/// Every number of features up to 64, where each has its own unrolled text, and above that one of each kind of remainder and
/// the ends.
pub fn shipped_features() -> impl Iterator<Item = usize> {
    let above = [
        65, 66, 67, 68, 69, 70, 71, 72, 96, 128, 256, 300, 1_000, 1_024, 4_096,
    ];
    (1..=MAX_REGISTER_FEATURES).chain(above)
}

/// With labels and without.
pub fn shipped() -> Vec<AssignShape> {
    shipped_features()
        .flat_map(|n_features| {
            [false, true].map(|wants_labels| AssignShape {
                n_features,
                wants_labels,
            })
        })
        .collect()
}
