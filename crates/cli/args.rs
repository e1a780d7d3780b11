//! The command line. Names, defaults and meanings are promises.

mod bench;
mod cluster;

use std::path::PathBuf;
use std::str::FromStr;

pub use bench::{BenchArgs, BenchBackendArg, DataArg, KernelArg};
pub use cluster::{
    ClientArgs, CoordinatorArgs, CredentialArgs, JobsArgs, MaybeClusterArgs, ReplayArgs, RunIdArgs,
    StatusArgs, SubmitArgs, SubmitFitArgs, WatchArgs, WorkerArgs,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Turns very large retail databases into customer personas, on any GPU, with the same answer everywhere.
#[derive(Debug, Parser)]
#[command(name = "clientele", version, max_term_width = 100)]
#[command(
    after_help = "Start with `clientele demo`: real data, personas in seconds, nothing to set up.\n\n\
Exit codes: 0 ok, 1 bug, 2 usage or config, 3 input data, 4 input changed, 5 transient, 6 conflict,\n\
7 limit, 8 auth, 9 quality gate."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The roles of the one binary.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Personas of 23,570 real customers, from data inside this program: no network, no GPU needed
    Demo(DemoArgs),
    /// Features, fit, personas and board from your tables: the main job
    Run(RunArgs),
    /// Reads the schemas of your Parquet tables and proposes a clientele.toml
    Init(InitArgs),
    /// Makes the feature table only: one row a customer
    Features(FeaturesArgs),
    /// Clusters a feature table of your own: one row a customer, numeric columns
    Fit(FitArgs),
    /// Lists the GPUs and CPU kernels of this machine and checks that they compute right
    Doctor(DoctorArgs),
    /// Measures how fast this machine is: its memory, its arithmetic, and a pass on each device
    ///
    /// What the machine gives is memory bandwidth and multiply-adds a second; how near to it one k-means pass over generated
    /// customers comes is measured on the CPU and on every GPU, for every combination of the sizes. Needs no data and no network.
    Bench(BenchArgs),
    /// Leads a cluster: shards tables over workers, keeps jobs, needs no GPU and holds no rows
    Coordinator(CoordinatorArgs),
    /// Works for a coordinator: reads shards, computes on its GPU or CPU, writes assignments
    Worker(WorkerArgs),
    /// Hands a fit to a coordinator and does not wait for it; prints the run id
    Submit(SubmitFitArgs),
    /// Where a run, or the whole cluster, stands
    Status(StatusArgs),
    /// Follows a run to its end, then prints what `fit` prints
    Watch(WatchArgs),
    /// Ends a run without a result
    Cancel(RunIdArgs),
    /// Lists the runs of a coordinator
    Jobs(JobsArgs),
    /// Computes a finished run again from its manifest and compares the hashes
    Replay(ReplayArgs),
    /// Makes certificates for a cluster of your own
    Certs(CertsArgs),
}

/// `clientele demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder for the result [default: clientele-demo, or the first free clientele-demo-N]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// `clientele run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The tables, what their columns mean, and what to make of them
    #[arg(short, long, value_name = "FILE", default_value = "clientele.toml")]
    pub config: PathBuf,
    /// Folder for the result; must not hold a finished run
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
    #[command(flatten)]
    pub cluster: MaybeClusterArgs,
}

/// `clientele init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Parquet files, globs or folders
    #[arg(required = true, value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Where to write the proposal; `-` for standard output
    #[arg(short, long, value_name = "FILE", default_value = "clientele.toml")]
    pub output: PathBuf,
}

/// `clientele features`.
#[derive(Debug, Args)]
pub struct FeaturesArgs {
    /// As for `clientele run`
    #[arg(short, long, value_name = "FILE", default_value = "clientele.toml")]
    pub config: PathBuf,
    /// Folder for features.parquet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Memory of this process, such as 8GiB [default: half of this machine's]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// `clientele fit`.
#[derive(Debug, Args)]
pub struct FitArgs {
    #[command(flatten)]
    pub table: TableArgs,
    /// Folder for the result; must not hold a finished run
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
    #[command(flatten)]
    pub cluster: MaybeClusterArgs,
}

/// What is to be clustered.
#[derive(Debug, Clone, Args)]
pub struct TableArgs {
    /// Parquet files, globs or folders: one row a customer
    #[arg(required = true, value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Column with the customer id, unique; without it rows are numbered
    #[arg(long, value_name = "COLUMN")]
    pub id: Option<String>,
    /// Columns to cluster on
    #[arg(
        long,
        value_name = "A,B,...",
        value_delimiter = ',',
        conflicts_with = "all_numeric"
    )]
    pub columns: Option<Vec<String>>,
    /// Cluster on every numeric column but the id (the default without --columns)
    #[arg(long)]
    pub all_numeric: bool,
    /// Column that says what a customer is worth; ranks the personas
    #[arg(long, value_name = "COLUMN")]
    pub value: Option<String>,
    /// Starting centroids: Parquet with the feature columns in raw units, one row a centroid
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// Title of the board
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
}

/// What the model is to be; everything here may change the result.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// Number of personas, or a range to choose from [default: 2..8]
    #[arg(long, value_name = "K|MIN..MAX")]
    pub k: Option<KRange>,
    /// Starts for each number of personas; the best is kept [default: 4]
    #[arg(long, value_name = "N")]
    pub restarts: Option<u32>,
    /// Decides everything random [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How columns become comparable [default: auto]
    #[arg(long, value_enum)]
    pub transform: Option<TransformArg>,
    /// What to do with rows that lack a value [default: impute]
    #[arg(long, value_enum)]
    pub nulls: Option<NullsArg>,
    /// Rounds, at most [default: 100]
    #[arg(long, value_name = "N")]
    pub max_iter: Option<u32>,
    /// Stop when centroids move less than this share of the mean variance [default: 1e-4]
    #[arg(long, value_name = "X")]
    pub tol: Option<f64>,
    /// Fit every start to its end, also one that another of as many personas has left behind
    #[arg(long)]
    pub no_halving: bool,
}

/// Where and how it is computed; nothing here changes the result.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Machine (never changes the result)")]
pub struct MachineArgs {
    /// What computes; software GPUs only when gpu is asked for [default: auto]
    #[arg(long, value_enum)]
    pub backend: Option<BackendArg>,
    /// Only the GPU whose name contains this
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// Workers in this process [default: 1]
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,
    /// Threads over all workers [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Memory of this process, such as 8GiB; what does not fit is streamed [default: half of this machine's]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `clientele doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// `clientele certs`.
#[derive(Debug, Args)]
pub struct CertsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CertsCommand,
}

/// What can be done with certificates.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Makes an authority, and certificates for a coordinator, its workers and its clients; overwrites nothing
    Init(CertsInitArgs),
}

/// `clientele certs init`.
#[derive(Debug, Args)]
pub struct CertsInitArgs {
    /// Folder for the certificates and their keys
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub out: PathBuf,
    /// Name or address that the coordinator is dialled by, besides localhost; may be given again
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// `--transform`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TransformArg {
    /// Logarithm where skewed, outliers clipped, then z-scores
    Auto,
    /// Z-scores
    Zscore,
    /// As they are
    None,
}

/// `--nulls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NullsArg {
    /// Fill with the column's median, and count
    Impute,
    /// End the run
    Fail,
    /// Leave the row out, and count
    Drop,
}

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    /// A real GPU if there is one, else the CPU
    Auto,
    /// A GPU, a software one too
    Gpu,
    /// The CPU
    Cpu,
}

/// `5` or `2..8`, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KRange {
    /// Smallest.
    pub min: usize,
    /// Largest.
    pub max: usize,
}

impl FromStr for KRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.trim()
                .parse::<usize>()
                .map_err(|_| format!("`{part}` is not a whole number; write 5 or 2..8"))
        };
        let (min, max) = match text.split_once("..") {
            Some((min, max)) => (number(min)?, number(max.trim_start_matches('='))?),
            None => (number(text)?, number(text)?),
        };
        if min == 0 {
            return Err("there is no model with 0 personas; the smallest is 1".into());
        }
        if min > max {
            return Err(format!(
                "{min}..{max} is empty; write the smaller number first"
            ));
        }
        Ok(Self { min, max })
    }
}

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let split = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" | "k" => 1 << 10,
            "mib" | "m" => 1 << 20,
            "gib" | "g" => 1 << 30,
            "tib" | "t" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            other => {
                return Err(format!(
                    "`{other}` is not a unit of memory; write 8GiB or 512MiB"
                ));
            }
        };
        let number: f64 = number
            .parse()
            .map_err(|_| format!("`{text}` is not an amount of memory; write 8GiB"))?;
        Ok(Self((number * factor as f64) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn k_is_a_number_or_a_range() {
        assert_eq!("5".parse(), Ok(KRange { min: 5, max: 5 }));
        assert_eq!("2..8".parse(), Ok(KRange { min: 2, max: 8 }));
        for bad in ["0", "0..3", "8..2", "two", "-1", ""] {
            assert!(bad.parse::<KRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_has_units() {
        assert_eq!("1GiB".parse(), Ok(Bytes(1 << 30)));
        assert_eq!("1.5 gib".parse(), Ok(Bytes(3 << 29)));
        assert_eq!("200MB".parse(), Ok(Bytes(200_000_000)));
        assert!("many".parse::<Bytes>().is_err());
        assert!("3 apples".parse::<Bytes>().is_err());
    }
}
