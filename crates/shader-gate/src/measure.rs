//! One family of devices: every shape compiled, and what came of it as a table.

use std::ffi::CStr;
use std::fmt;
use std::path::Path;

use clientele_gpu::shaders::{AssignShape, Flaw, RememberShape, shipped, shipped_features};

use crate::isa::{Program, Sweep};
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
    /// Vector instructions for each value added to a sum, for 8 clusters; 0 where that is not what a kernel is for.
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

    /// Whether it is the kernel that looks at the few rows which may have changed.
    pub fn remembers(&self) -> bool {
        self.shape.ends_with(" remember")
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

/// A kernel for a number of features.
#[derive(Debug, Clone, Copy)]
pub enum Kernel {
    Assign(AssignShape),
    Remember(RememberShape),
}

impl Kernel {
    /// All that are shipped.
    pub fn shipped() -> impl Iterator<Item = Self> {
        let remembering = shipped_features().map(|n_features| RememberShape { n_features });
        let assigning = shipped().into_iter().map(Self::Assign);
        assigning.chain(remembering.map(Self::Remember))
    }

    pub fn n_features(&self) -> usize {
        match self {
            Self::Assign(shape) => shape.n_features,
            Self::Remember(shape) => shape.n_features,
        }
    }

    fn name(&self) -> String {
        let what = match self {
            Self::Assign(shape) if shape.wants_labels => " labels",
            Self::Assign(_) => "",
            Self::Remember(_) => " remember",
        };
        format!("d={}{what}", self.n_features())
    }

    fn entry_point(&self) -> &'static CStr {
        match self {
            Self::Assign(_) => c"assign",
            Self::Remember(_) => c"remember",
        }
    }

    fn text(&self, flaw: Option<Flaw>) -> String {
        match (self, flaw) {
            (Self::Assign(shape), None) => shape.wgsl(),
            (Self::Assign(shape), Some(flaw)) => shape.wgsl_with(flaw),
            (Self::Remember(shape), None) => shape.wgsl(),
            (Self::Remember(shape), Some(flaw)) => shape.wgsl_with(flaw),
        }
    }

    fn n_bindings(&self) -> u32 {
        match self {
            Self::Assign(shape) => N_BINDINGS + u32::from(shape.wants_labels),
            Self::Remember(_) => N_BINDINGS + 1,
        }
    }

    fn sweep(&self) -> Sweep {
        match self {
            Self::Assign(shape) => shape.into(),
            Self::Remember(shape) => shape.into(),
        }
    }
}

/// Each kernel, on the device that the environment chose. The instructions go to files in the folder `assembly`, if there is one.
///
/// # Errors
/// The kernel, and what is wrong with it.
pub fn all(
    compiler: &Compiler,
    family: &str,
    kernels: impl Iterator<Item = Kernel>,
    flaw: Option<Flaw>,
    assembly: Option<&Path>,
) -> Result<Vec<Row>, String> {
    kernels
        .map(|kernel| {
            one(compiler, family, &kernel, flaw, assembly)
                .map_err(|error| format!("{kernel:?}: {error}"))
        })
        .collect()
}

fn one(
    compiler: &Compiler,
    family: &str,
    kernel: &Kernel,
    flaw: Option<Flaw>,
    assembly: Option<&Path>,
) -> Result<Row, String> {
    let entry_point = kernel.entry_point();
    let spirv = spirv::compile(&kernel.text(flaw), &entry_point.to_string_lossy())?;
    let compiled = compiler
        .compile(&spirv, entry_point, kernel.n_bindings())
        .map_err(|error| error.to_string())?;
    let name = kernel.name();
    if let Some(folder) = assembly {
        let path = folder.join(format!("{family} {name}.s"));
        std::fs::write(&path, &compiled.assembly)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let program = Program::parse(&compiled.assembly);
    Ok(Row {
        family: family.to_owned(),
        shape: name,
        vector_a_term: program.vector_a_term(&kernel.sweep())?,
        vector_a_sum: match kernel {
            Kernel::Assign(shape) => program.vector_a_sum(shape)?,
            // Few rows move.
            Kernel::Remember(_) => 0.0,
        },
        vgprs: compiled.statistic("VGPRs"),
        waves: compiled.statistic("Subgroups per SIMD"),
        lds_bytes: compiled.statistic("LDS size"),
        spills: compiled.statistic("Spilled VGPRs") + compiled.statistic("Spilled SGPRs"),
        scratch_bytes: compiled.statistic("Scratch size"),
    })
}
