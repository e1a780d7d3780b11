//! A worker of a cluster: dials the coordinator, registers, answers what it is asked, and dials again when the connection ends.

mod runs;

use std::sync::Arc;
use std::time::Duration;

use clientele_data::ErrorKind;
use clientele_kmeans::ALGORITHM_VERSION;
use clientele_proto::connection::MAX_MESSAGE_BYTES;
use clientele_proto::v1::work_service_client::WorkServiceClient;
use clientele_proto::{Assembler, encode_worker_message, frames, v1};
use clientele_protocol::cluster::{CoordinatorMessage, Registration, WorkerMessage};
use clientele_protocol::{PROTOCOL_VERSION, TaskError};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::{Body, Bytes, StdError};
use tonic::{Status, Streaming};

use crate::Resources;

pub use runs::Execution;
use runs::Runs;

/// Frames that may wait for the network; each is at most 1 MiB.
const FRAME_QUEUE: usize = 4;
/// Messages that may wait to be framed.
const MESSAGE_QUEUE: usize = 64;
/// Between two attempts to connect, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a connection may take to be used: dialling, and the first answer.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the coordinator may take to hear that a worker leaves.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a worker of a cluster is set up.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// For people.
    pub name: String,
    /// What runs may read and write.
    pub stores: clientele_data::Stores,
    /// A local folder for what does not fit into memory.
    pub spill_dir: std::path::PathBuf,
    /// How tasks are computed.
    pub execution: Execution,
}

/// Why a worker has stopped working.
#[derive(Debug, thiserror::Error)]
pub enum AttendError {
    /// The coordinator does not want it, and would not in a minute either.
    #[error("the coordinator refuses this worker")]
    Refused(#[source] TaskError),
}

/// Works for the coordinator that `connect` reaches until `stop` becomes true. A coordinator that is away is waited for.
///
/// # Errors
/// [`AttendError::Refused`] for what no further attempt would change: other versions, a missing permission.
pub async fn attend<S, F>(
    resources: Arc<Resources>,
    options: RemoteOptions,
    connect: impl Fn() -> F,
    mut stop: watch::Receiver<bool>,
) -> Result<(), AttendError>
where
    F: Future<Output = Result<S, StdError>>,
    S: tonic::client::GrpcService<tonic::body::Body> + Send + 'static,
    S::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as Body>::Error: Into<StdError> + Send,
    S::Error: Into<StdError>,
    S::Future: Send,
{
    let registration = Registration {
        protocol_version: PROTOCOL_VERSION,
        algorithm_version: ALGORITHM_VERSION.into(),
        name: options.name.clone(),
        devices: resources.devices(),
        memory_bytes: resources.memory_bytes(),
        n_threads: u32::try_from(resources.n_threads()).unwrap_or(u32::MAX),
        stores: options.stores.aliases().map(str::to_owned).collect(),
    };
    let mut runs = Runs::new(resources, options);
    let mut pause = FIRST_PAUSE;
    let mut said_away = false;
    loop {
        let attempt = async {
            let connected = tokio::time::timeout(WELCOME_TIMEOUT, connect()).await;
            let channel = connected
                .map_err(|_| Status::deadline_exceeded("nobody answers"))?
                .map_err(Status::from_error)?;
            let client =
                WorkServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
            Connection::open(client, &registration).await
        };
        let opened = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            opened = attempt => opened,
        };
        let ended = match opened {
            Ok(connection) => {
                (pause, said_away) = (FIRST_PAUSE, false);
                connection.serve(&mut runs, &mut stop).await
            }
            Err(status) => Err(status),
        };
        let status = match ended {
            Ok(()) => return Ok(()),
            Err(status) => status,
        };
        let error = clientele_proto::status::to_error(&status);
        if !matches!(error.kind, ErrorKind::Transient | ErrorKind::Limit) {
            return Err(AttendError::Refused(error));
        }
        if !said_away {
            said_away = true;
            tracing::warn!(%error, causes = error.causes.join("; "), "the coordinator is away; dialling again until it is back");
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A registered worker's stream.
struct Connection {
    outgoing: mpsc::Sender<WorkerMessage>,
    incoming: Incoming,
    heartbeat: Duration,
    /// Carries messages to the network; ends when all are there.
    writing: tokio::task::JoinHandle<()>,
}

struct Incoming {
    frames: Streaming<v1::AttendResponse>,
    assembler: Assembler,
}

impl Connection {
    async fn open<S>(
        mut client: WorkServiceClient<S>,
        registration: &Registration,
    ) -> Result<Self, Status>
    where
        S: tonic::client::GrpcService<tonic::body::Body>,
        S::ResponseBody: Body<Data = Bytes> + Send + 'static,
        <S::ResponseBody as Body>::Error: Into<StdError> + Send,
        S::Error: Into<StdError>,
    {
        let (outgoing, mut messages) = mpsc::channel(MESSAGE_QUEUE);
        let (sender, requests) = mpsc::channel(FRAME_QUEUE);
        let writing = tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    biased;
                    message = messages.recv() => message,
                    // Whoever still computes for this connection learns that nobody waits for the answer.
                    () = sender.closed() => None,
                };
                let Some(message) = message else {
                    return;
                };
                for frame in frames(encode_worker_message(&message)) {
                    let request = v1::AttendRequest { frame: Some(frame) };
                    if sender.send(request).await.is_err() {
                        return;
                    }
                }
            }
        });
        let hello = WorkerMessage::Registration(registration.clone());
        // The task above lives for as long as the sender does.
        let _ = outgoing.send(hello).await;
        let welcomed = async {
            let response = client.attend(ReceiverStream::new(requests)).await?;
            let mut incoming = Incoming {
                frames: response.into_inner(),
                assembler: Assembler::default(),
            };
            match incoming.next().await? {
                CoordinatorMessage::Welcome {
                    worker,
                    heartbeat_ms,
                } => {
                    tracing::info!(worker = worker.0, "registered with the coordinator");
                    Ok((incoming, Duration::from_millis(heartbeat_ms.into())))
                }
                _ => Err(Status::internal("the coordinator does not say welcome")),
            }
        };
        let welcomed = tokio::time::timeout(WELCOME_TIMEOUT, welcomed).await;
        let (incoming, heartbeat) = welcomed
            .map_err(|_| Status::deadline_exceeded("the coordinator does not answer"))??;
        Ok(Self {
            outgoing,
            incoming,
            heartbeat,
            writing,
        })
    }

    /// Answers until the connection ends, with why; or until `stop`, with nothing left to say.
    async fn serve(
        mut self,
        runs: &mut Runs,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Status> {
        runs.connected();
        let mut heartbeats = tokio::time::interval(self.heartbeat.max(Duration::from_millis(10)));
        heartbeats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // In this order, so that a simulation does the same again; what is seldom comes first.
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {
                    self.say_goodbye().await;
                    return Ok(());
                }
                _ = heartbeats.tick() => {
                    // A queue that is full says as much as a heartbeat, as soon as it moves.
                    let _ = self.outgoing.try_send(WorkerMessage::Heartbeat);
                }
                Some(opened) = runs.next_opened() => runs.note_opened(opened, &self.outgoing),
                message = self.incoming.next() => runs.take(message?, &self.outgoing),
            }
        }
    }

    /// Hands back what is not answered.
    async fn say_goodbye(self) {
        tracing::info!("leaving; what is not answered goes to other workers");
        let goodbye = async {
            let _ = self.outgoing.send(WorkerMessage::Draining).await;
            drop(self.outgoing);
            // The core has read it when it ends the stream; it does so as soon as it sees ours end.
            let _ = self.writing.await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
    }
}

impl Incoming {
    async fn next(&mut self) -> Result<CoordinatorMessage, Status> {
        loop {
            let response = self.frames.message().await?;
            let ended = || Status::unavailable("the coordinator has ended the stream");
            let frame = response.ok_or_else(ended)?.frame.unwrap_or_default();
            let malformed =
                |error: clientele_proto::WireError| Status::unavailable(error.to_string());
            if let Some(bytes) = self.assembler.push(frame).map_err(malformed)? {
                return clientele_proto::decode_coordinator_message(&bytes).map_err(malformed);
            }
        }
    }
}
