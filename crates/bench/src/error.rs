//! Why there is no measurement, or no comparison.

use std::path::PathBuf;

use clientele_gpu::OpenError;
use clientele_kmeans::cpu::Kernel;
use clientele_kmeans::{BackendError, MAX_CLUSTERS, MAX_FEATURES, MAX_ROWS};

use crate::SCHEMA;
use crate::text::count;

/// What ended a bench.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// A list of settings is empty or holds a zero.
    #[error("--{list} needs numbers of at least 1")]
    Zero {
        /// Its name.
        list: &'static str,
    },
    /// More clusters than rows.
    #[error("n_rows={n_rows} must be at least n_clusters={n_clusters}")]
    TooFewRows {
        /// Rows asked for.
        n_rows: u64,
        /// Clusters asked for.
        n_clusters: usize,
    },
    /// A number beyond what a model may have.
    #[error("{what} {} is above the limit of {}", count(*wanted), count(*limit))]
    AboveLimit {
        /// Which number.
        what: &'static str,
        /// What was asked for.
        wanted: u64,
        /// What there may be.
        limit: u64,
    },
    /// The rows do not fit into the memory that may be used.
    #[error(
        "{} rows of {n_features} features take {} MiB{}, and half of this machine's memory is {} MiB",
        count(*n_rows), count(rows_bytes >> 20), on_devices(*resident_bytes), count(limit_bytes >> 20)
    )]
    Memory {
        /// Rows asked for.
        n_rows: u64,
        /// Features asked for.
        n_features: usize,
        /// Bytes they take.
        rows_bytes: u64,
        /// Bytes they take once more on devices that share this machine's memory.
        resident_bytes: u64,
        /// Bytes there are.
        limit_bytes: u64,
    },
    /// No device was given.
    #[error("no device to measure")]
    NoDevice,
    /// This processor lacks what a kernel needs.
    #[error("this processor cannot run {}; it can run {}", kernel_names(wanted.as_slice()), kernel_names(available))]
    NoSuchKernel {
        /// What was asked for; `None` is the fastest, which there always is.
        wanted: Option<Kernel>,
        /// What there is.
        available: Vec<Kernel>,
    },
    /// A GPU was asked for and cannot be used.
    #[error(transparent)]
    Gpu(#[from] OpenError),
    /// A device stopped answering.
    #[error("{device} stopped at {shape}")]
    Device {
        /// Which.
        device: String,
        /// At which problem.
        shape: String,
        /// What it said.
        source: BackendError,
    },
    /// Two devices found different models: one of them computes wrongly.
    #[error(
        "{first} and {second} disagree at {shape}: model {first_hash:.16} and model {second_hash:.16}"
    )]
    Disagree {
        /// The problem.
        shape: String,
        /// One device.
        first: String,
        /// Its model.
        first_hash: String,
        /// The other device.
        second: String,
        /// Its model.
        second_hash: String,
    },
    /// The same device gave two answers to the same question.
    #[error("{device} answered the same pass differently at {shape}")]
    Unrepeatable {
        /// Which.
        device: String,
        /// The problem.
        shape: String,
    },
    /// Generated rows were off the grid, or a thread could not start: a fault of this program or of the system.
    #[error("the measurement could not be set up: {reason}")]
    Setup {
        /// Why.
        reason: String,
    },
    /// A saved run cannot be read.
    #[error("`{}` cannot be read", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is no saved run.
    #[error("`{}` is not a saved run of `clientele bench`", file.display())]
    NotARun {
        /// Which.
        file: PathBuf,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// A point of a device that is not listed.
    #[error("`{}` has points of `{device}`, which is none of its devices", file.display())]
    UnknownDevice {
        /// Which.
        file: PathBuf,
        /// The name.
        device: String,
    },
    /// A saved run of another version of this program.
    #[error("`{}` is written in schema {found}; this program reads schema {SCHEMA}", file.display())]
    OtherSchema {
        /// Which.
        file: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// Runs of different arithmetic.
    #[error("the runs were made by different arithmetic: {a} and {b}")]
    OtherAlgorithm {
        /// Of the first.
        a: String,
        /// Of the second.
        b: String,
    },
    /// Runs that have made different numbers of passes have different models.
    #[error("the runs made {a} and {b} passes, so their models differ by right")]
    OtherPasses {
        /// Of the first.
        a: u32,
        /// Of the second.
        b: u32,
    },
    /// Runs without a problem in common.
    #[error("the runs have no shape in common")]
    NothingInCommon {
        /// Shapes of the first.
        a: String,
        /// Shapes of the second.
        b: String,
    },
    /// The page's template is wrong.
    #[error("the page cannot be rendered")]
    Page(#[from] minijinja::Error),
    /// Something cannot be written as JSON.
    #[error("a result cannot be written as JSON")]
    Json(#[source] serde_json::Error),
}

fn kernel_names(kernels: &[Kernel]) -> String {
    let names: Vec<String> = kernels
        .iter()
        .map(|kernel| format!("{kernel:?}").to_lowercase())
        .collect();
    names.join(", ")
}

impl BenchError {
    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        let fixed = match self {
            Self::Zero { .. } => {
                "for example `--rows 1000000 --features 8,32 --clusters 8,64 --passes 10`"
            }
            Self::TooFewRows { .. } => "ask for more --rows or fewer --clusters",
            Self::AboveLimit { .. } => {
                return Some(format!(
                    "a model has at most {} clusters and {} features, a job {} rows",
                    count(MAX_CLUSTERS as u64),
                    count(MAX_FEATURES as u64),
                    count(MAX_ROWS)
                ));
            }
            Self::Memory { .. } => {
                "fewer --rows or --features: a pass is as fast per row on a million rows as on a billion"
            }
            Self::NoDevice => {
                "`clientele doctor` lists what there is; `--backend cpu` always works"
            }
            Self::NoSuchKernel { .. } => {
                "leave --kernel away for the fastest; `clientele doctor` lists them"
            }
            Self::Gpu(_) => "`clientele doctor` shows what there is; `--backend cpu` needs no GPU",
            Self::Device { .. } => {
                "try again, or leave the device out with `--backend cpu` or `--adapter NAME`"
            }
            Self::Disagree { .. } | Self::Unrepeatable { .. } => {
                "one of them computes wrongly: `clientele doctor` tests each; please report what it says"
            }
            Self::Unreadable { .. } | Self::NotARun { .. } | Self::UnknownDevice { .. } => {
                "`clientele bench --out FILE` writes what `--compare` reads"
            }
            Self::OtherSchema { .. } | Self::OtherAlgorithm { .. } => {
                "measure both again with the same version of clientele"
            }
            Self::OtherPasses { .. } => "measure one of them again with the --passes of the other",
            Self::NothingInCommon { a, b } => {
                return Some(format!(
                    "measure one again with the lists of the other; the first has {a}; the second has {b}"
                ));
            }
            Self::Setup { .. } | Self::Page(_) | Self::Json(_) => return None,
        };
        Some(fixed.into())
    }
}

fn on_devices(resident_bytes: u64) -> String {
    match resident_bytes >> 20 {
        0 => String::new(),
        mib => format!(
            " and another {} MiB on GPUs without memory of their own",
            count(mib)
        ),
    }
}
