//! One family of devices: every shape compiled, and what came of it as a table.

use std::fmt;
use std::path::Path;

use clientele_gpu::shaders::{AssignShape, Flaw};

use crate::isa::Program;
use crate::spirv;
use crate::vulkan::Compiler;

/// Bindings of the assignment shader without labels.
const N_BINDINGS: u32 = 8;

/// What was measured of one shape on one family.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub family: String,
    pub shape: String,
    /// Vector instructions for each row, centroid and feature.
    pub vector_a_term: f64,
    /// Vector instructions for each value added to a sum, for 8 clusters.
    pub vector_a_sum: f64,
    pub vgprs: u64,
    /// Subgroups that a SIMD unit can hold at once.
    pub waves: u64,
    pub lds_bytes: u64,
    pub spills: u64,
    pub scratch_bytes: u64,
}

impl Row {
    pub const COLUMNS: &str = "family\tshape\tvector_a_term\tvector_a_sum\tvgprs\twaves\tlds_bytes\tspills\tscratch_bytes";

    /// Of the shape.
    pub fn n_features(&self) -> Option<usize> {
        let number = self.shape.strip_prefix("d=")?.split(' ').next()?;
        number.parse().ok()
    }

    /// Reads a line that [`Row`] has written.
    ///
    /// # Errors
    /// The line, when it is none.
    pub fn parse(line: &str) -> Result<Self, String> {
        let fields: Vec<&str> = line.split('\t').collect();
        let wrong = || format!("not a line of measurements: `{line}`");
        let [family, shape, term, sum, counts @ ..] = fields.as_slice() else {
            return Err(wrong());
        };
        let counts: Result<Vec<u64>, _> = counts.iter().map(|count| count.parse()).collect();
        let counts = counts
            .ok()
            .and_then(|counts| <[u64; 5]>::try_from(counts).ok());
        let [vgprs, waves, lds_bytes, spills, scratch_bytes] = counts.ok_or_else(wrong)?;
        Ok(Self {
            family: (*family).to_owned(),
            shape: (*shape).to_owned(),
            vector_a_term: term.parse().map_err(|_| wrong())?,
            vector_a_sum: sum.parse().map_err(|_| wrong())?,
            vgprs,
            waves,
            lds_bytes,
            spills,
            scratch_bytes,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\t{}\t{:.4}\t{:.4}\t{}\t{}\t{}\t{}\t{}",
            self.family,
            self.shape,
            self.vector_a_term,
            self.vector_a_sum,
            self.vgprs,
            self.waves,
            self.lds_bytes,
            self.spills,
            self.scratch_bytes
        )
    }
}

/// Each shape, on the device that the environment chose. The instructions go to files in the folder `assembly`, if there is one.
///
/// # Errors
/// The shape, and what is wrong with it.
pub fn all(
    compiler: &Compiler,
    family: &str,
    shapes: impl Iterator<Item = AssignShape>,
    flaw: Option<Flaw>,
    assembly: Option<&Path>,
) -> Result<Vec<Row>, String> {
    shapes
        .map(|shape| {
            one(compiler, family, &shape, flaw, assembly).map_err(|e| format!("{shape:?}: {e}"))
        })
        .collect()
}

fn one(
    compiler: &Compiler,
    family: &str,
    shape: &AssignShape,
    flaw: Option<Flaw>,
    assembly: Option<&Path>,
) -> Result<Row, String> {
    let text = flaw.map_or_else(|| shape.wgsl(), |flaw| shape.wgsl_with(flaw));
    let spirv = spirv::compile(&text, "assign")?;
    let n_bindings = N_BINDINGS + u32::from(shape.wants_labels);
    let compiled = compiler
        .compile(&spirv, c"assign", n_bindings)
        .map_err(|error| error.to_string())?;
    let name = format!(
        "d={}{}",
        shape.n_features,
        if shape.wants_labels { " labels" } else { "" }
    );
    if let Some(folder) = assembly {
        let path = folder.join(format!("{family} {name}.s"));
        std::fs::write(&path, &compiled.assembly)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let program = Program::parse(&compiled.assembly);
    Ok(Row {
        family: family.to_owned(),
        shape: name,
        vector_a_term: program.vector_a_term(shape)?,
        vector_a_sum: program.vector_a_sum(shape)?,
        vgprs: compiled.statistic("VGPRs"),
        waves: compiled.statistic("Subgroups per SIMD"),
        lds_bytes: compiled.statistic("LDS size"),
        spills: compiled.statistic("Spilled VGPRs") + compiled.statistic("Spilled SGPRs"),
        scratch_bytes: compiled.statistic("Scratch size"),
    })
}
