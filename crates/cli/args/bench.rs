//! Arguments of `clientele bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Format;

/// `clientele bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clientele bench                                  the usual sizes, in a minute or two
  clientele bench --html bench.html --out a.json   a page with plots, and a file to keep
  clientele bench --compare a.json b.json          which of two machines is faster, and where
  clientele bench --rows 10000000 --features 32 --clusters 8,64
")]
pub struct BenchArgs {
    /// What is measured
    #[arg(long, value_enum, default_value_t = BenchBackendArg::Auto)]
    pub backend: BenchBackendArg,
    /// Only GPUs whose name contains this
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// CPU kernels, each measured as a device of its own [default: the fastest]
    #[arg(
        long,
        value_enum,
        value_name = "A,B,...",
        value_delimiter = ',',
        env = "CLIENTELE_KERNEL",
        ignore_case = true
    )]
    pub kernel: Vec<KernelArg>,
    /// Threads that compute, or that feed a GPU [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Kinds of customers
    #[arg(
        long,
        value_enum,
        value_name = "A,B",
        value_delimiter = ',',
        default_value = "mixture,skewed",
        help_heading = "Sizes"
    )]
    pub data: Vec<DataArg>,
    /// Numbers of customers; more than fit in the processor's caches
    #[arg(
        long,
        value_name = "N,N,...",
        value_delimiter = ',',
        default_value = "1000000",
        help_heading = "Sizes"
    )]
    pub rows: Vec<u64>,
    /// Numbers of features (d)
    #[arg(
        long,
        value_name = "N,N,...",
        value_delimiter = ',',
        default_value = "8,16,32,64",
        help_heading = "Sizes"
    )]
    pub features: Vec<usize>,
    /// Numbers of clusters (k)
    #[arg(
        long,
        value_name = "N,N,...",
        value_delimiter = ',',
        default_value = "8,16,32,64",
        help_heading = "Sizes"
    )]
    pub clusters: Vec<usize>,
    /// Passes timed for each combination
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Sizes")]
    pub passes: u32,
    /// Measures only what the machine gives, and no pass
    #[arg(long)]
    pub controls: bool,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = Format::Text, help_heading = "Results")]
    pub format: Format,
    /// Also saves the results as JSON, for --compare
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub out: Option<PathBuf>,
    /// Also writes a page with plots that opens from disk
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Results",
        conflicts_with = "controls"
    )]
    pub html: Option<PathBuf>,
    /// Measures nothing: compares two saved runs; exit code 1 when their models differ
    #[arg(
        long,
        num_args = 2,
        value_names = ["A.json", "B.json"],
        help_heading = "Results",
        conflicts_with_all = ["out", "html", "controls"]
    )]
    pub compare: Option<Vec<PathBuf>>,
}

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchBackendArg {
    /// The CPU and every real GPU
    Auto,
    /// The CPU
    Cpu,
    /// GPUs only, software ones too
    Gpu,
    /// The CPU and every GPU, software ones too
    All,
}

/// `--kernel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KernelArg {
    /// x86-64 with 512-bit vectors and 16-bit products
    Avx512Vnni,
    /// x86-64 with 512-bit vectors
    Avx512,
    /// x86-64 with 256-bit vectors
    Avx2,
    /// 64-bit Arm
    Neon,
    /// Any processor
    Scalar,
}

/// `--data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DataArg {
    /// Forty overlapping groups
    Mixture,
    /// Few large groups, many small ones, half of the features with long tails
    Skewed,
}
