//! Arguments of the cluster's commands.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{BackendArg, Bytes, Format};

/// Where files are.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Storage")]
pub struct StoreArgs {
    /// A place that jobs may name by an alias: local=/data, or lake=s3://bucket/prefix; may be given again.
    /// The same aliases on all machines, for the same files [default: local=the working directory]
    #[arg(long = "store", value_name = "ALIAS=PLACE")]
    pub stores: Vec<String>,
}

/// Who a client or a worker is.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Security")]
pub struct CredentialArgs {
    /// Authority that signed the coordinator's certificate, for https:// (see `clientele certs init`)
    #[arg(long, value_name = "FILE", env = "CLIENTELE_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate to show the coordinator
    #[arg(
        long,
        value_name = "FILE",
        env = "CLIENTELE_TLS_CERT",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(
        long,
        value_name = "FILE",
        env = "CLIENTELE_TLS_KEY",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
    /// File with the token to show the coordinator
    #[arg(long, value_name = "FILE", env = "CLIENTELE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// Which coordinator.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Coordinator")]
pub struct ClientArgs {
    /// The coordinator, such as http://127.0.0.1:7070
    #[arg(
        long,
        value_name = "URL",
        env = "CLIENTELE_COORDINATOR",
        default_value = "http://127.0.0.1:7070"
    )]
    pub coordinator: String,
    #[command(flatten)]
    pub credentials: CredentialArgs,
}

/// What `fit`, `run` and `submit` tell a cluster.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Cluster (never changes the result)")]
pub struct SubmitArgs {
    /// Name of the run, for `status` and `cancel` [default: made up]
    #[arg(long, value_name = "ID")]
    pub run_id: Option<String>,
    /// How long the run waits while there is no worker, in seconds [default: the coordinator's]
    #[arg(long, value_name = "SECONDS")]
    pub wait_for_workers: Option<u64>,
    #[command(flatten)]
    pub stores: StoreArgs,
}

/// `fit` and `run`, here or on a cluster.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Cluster (never changes the result)")]
pub struct MaybeClusterArgs {
    /// Compute on the cluster of this coordinator, such as http://127.0.0.1:7070
    #[arg(long, value_name = "URL")]
    pub coordinator: Option<String>,
    #[command(flatten)]
    pub submit: SubmitArgs,
    #[command(flatten)]
    pub credentials: CredentialArgs,
}

impl MaybeClusterArgs {
    /// The coordinator, if the cluster is meant.
    pub fn client(&self) -> Option<ClientArgs> {
        let coordinator = self.coordinator.clone()?;
        Some(ClientArgs {
            coordinator,
            credentials: self.credentials.clone(),
        })
    }
}

/// `clientele submit`.
#[derive(Debug, Args)]
pub struct SubmitFitArgs {
    #[command(flatten)]
    pub table: super::TableArgs,
    /// Folder for the result; must not hold a finished run
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub model: super::ModelArgs,
    #[command(flatten)]
    pub submit: SubmitArgs,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `clientele coordinator`.
#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    /// Address to listen on; without certificates or tokens only a loopback one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7070")]
    pub listen: SocketAddr,
    /// Address of /metrics, /livez and /readyz [default: none]
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// Where jobs are remembered, so that a restarted coordinator goes on with them
    /// [default: _clientele in the first store]
    #[arg(long, value_name = "ALIAS:KEY")]
    pub state: Option<String>,
    /// Runs computed side by side; others queue
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub max_running: usize,
    /// Runs in the queue; more are refused
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub max_queued: usize,
    /// Workers; more are refused
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub max_workers: usize,
    /// How long a run waits while there is no worker, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub wait_for_workers: u64,
    /// Lets tools such as grpcurl ask what services there are
    #[arg(long)]
    pub reflection: bool,
    /// Certificate of this coordinator
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub tls_key: Option<PathBuf>,
    /// Authority that signed the certificates of workers and clients
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub tls_ca: Option<PathBuf>,
    /// Tokens that are let in, one a line: `client TOKEN` or `worker TOKEN`
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    pub stores: StoreArgs,
}

/// `clientele worker`.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// What people call it [default: host name and process]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Folder for what does not fit into memory; files in it have no name and vanish with the process
    /// [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Option<PathBuf>,
    /// What computes; software GPUs only when gpu is asked for [default: auto]
    #[arg(long, value_enum)]
    pub backend: Option<BackendArg>,
    /// Only the GPU whose name contains this
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Memory of this process, such as 8GiB; what does not fit is streamed
    /// [default: half of this machine's or container's]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    #[command(flatten)]
    pub client: ClientArgs,
    #[command(flatten)]
    pub stores: StoreArgs,
}

/// `clientele status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The run; without it everything
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `clientele watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `clientele cancel`.
#[derive(Debug, Args)]
pub struct RunIdArgs {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `clientele jobs`.
#[derive(Debug, Args)]
pub struct JobsArgs {
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `clientele replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Folder of a finished run
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    #[command(flatten)]
    pub stores: StoreArgs,
    #[command(flatten)]
    pub machine: super::MachineArgs,
}
