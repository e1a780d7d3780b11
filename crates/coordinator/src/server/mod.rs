//! The shell of a coordinator process: gRPC in front, storage behind, the state machine of [`crate::cluster`] in between.

mod attend;
mod core;
mod jobs;
pub mod metrics;
mod remote;
mod runs;

use std::sync::Arc;

use clientele_data::{Folder, Stores};
use clientele_proto::connection::MAX_MESSAGE_BYTES;
use clientele_proto::security::ServerSecurity;
use clientele_proto::v1::jobs_service_server::JobsServiceServer;
use clientele_proto::v1::work_service_server::WorkServiceServer;
use clientele_protocol::TaskError;
use clientele_protocol::jobs::JobStatus;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

pub use self::core::StorageCalls;
pub use self::runs::{Injected, Publication, Publisher, STEPS, Submission};

use self::attend::WorkServer;
use self::core::Core;
use self::jobs::JobsServer;
use self::metrics::Metrics;
use self::runs::Runs;
use crate::cluster::Limits;

/// How a coordinator is set up.
pub struct ServerOptions {
    /// Where jobs may read and write.
    pub stores: Stores,
    /// Where jobs are remembered.
    pub state: Folder,
    /// What it takes on.
    pub limits: Limits,
    /// What makes results of what was found.
    pub publisher: Arc<dyn Publisher>,
    /// Who may call.
    pub security: ServerSecurity,
    /// Whether the services describe themselves.
    pub has_reflection: bool,
    /// How storage is called.
    pub storage: StorageCalls,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What befalls it at one of [`STEPS`]; for tests.
    pub injected: Option<Injected>,
}

/// Why a coordinator has stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its state folder cannot be read.
    #[error("the jobs of earlier coordinators cannot be read")]
    State(#[source] TaskError),
    /// Its network is broken.
    #[error("the coordinator cannot serve")]
    Transport(#[from] tonic::transport::Error),
    /// It cannot describe itself.
    #[error("the descriptions of the services are damaged")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A coordinator that knows the jobs of those before it.
pub struct Server {
    options: ServerOptions,
    runs: Arc<Runs>,
    remembered: Vec<(Submission, Option<JobStatus>)>,
}

impl Server {
    /// Reads what earlier coordinators have left.
    ///
    /// # Errors
    /// [`ServeError::State`].
    pub async fn open(options: ServerOptions) -> Result<Self, ServeError> {
        let runs = Arc::new(Runs::new(
            options.stores.clone(),
            options.state.clone(),
            options.publisher.clone(),
            options.injected.clone(),
        ));
        let remembered = match options.storage {
            StorageCalls::Inline => runs.remembered(),
            StorageCalls::Threads => {
                let runs = runs.clone();
                let read = tokio::task::spawn_blocking(move || runs.remembered()).await;
                read.unwrap_or_else(|_| Ok(Vec::new()))
            }
        };
        Ok(Self {
            options,
            runs,
            remembered: remembered.map_err(ServeError::State)?,
        })
    }

    /// Serves connections of `incoming` until `stop` becomes true. Unfinished runs stay where they are, for the next coordinator.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve<C, E>(
        self,
        incoming: impl Stream<Item = Result<C, E>>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), ServeError>
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Self {
            options,
            runs,
            remembered,
        } = self;
        let metrics = options.metrics;
        let (core, commands, handle) = Core::new(
            options.limits,
            runs.clone(),
            options.storage,
            metrics.clone(),
            options.security.layer().clone(),
        );
        let working = tokio::spawn(core.run(remembered, commands, stop.clone()));
        let work = WorkServer {
            core: handle.clone(),
            metrics: metrics.clone(),
        };
        let jobs = JobsServer {
            core: handle,
            runs,
            storage: options.storage,
        };
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<JobsServiceServer<JobsServer>>().await;
        health.set_serving::<WorkServiceServer<WorkServer>>().await;
        let reflection = match options.has_reflection {
            true => Some(
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(clientele_proto::FILE_DESCRIPTOR_SET)
                    .build_v1()?,
            ),
            false => None,
        };
        metrics.set_ready(true);
        let mut stopped = stop;
        let served = options
            .security
            .server()
            .add_service(WorkServiceServer::new(work).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(JobsServiceServer::new(jobs).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(health_service)
            .add_optional_service(reflection)
            .serve_with_incoming_shutdown(incoming, async move {
                // A sender that is gone means the same.
                let _ = stopped.wait_for(|stop| *stop).await;
            })
            .await;
        metrics.set_ready(false);
        working.abort();
        Ok(served?)
    }
}
