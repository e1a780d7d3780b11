//! `WorkService`: one stream for the life of a worker.

use std::pin::Pin;

use clientele_data::ErrorKind;
use clientele_kmeans::ALGORITHM_VERSION;
use clientele_proto::status::from_error as to_status;
use clientele_proto::v1;
use clientele_proto::{Assembler, encode_coordinator_message, frames};
use clientele_protocol::cluster::{CoordinatorMessage, Registration, WorkerMessage};
use clientele_protocol::{PROTOCOL_VERSION, TaskError, WorkerId};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::core::{Attended, Command, Handle};
use super::metrics::Metrics;
use crate::cluster::{Event, HEARTBEAT};

/// Frames that may wait for the network; each is at most 1 MiB.
const FRAME_QUEUE: usize = 4;

/// How long a worker has for its first message.
const REGISTRATION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Serves workers.
pub(super) struct WorkServer {
    pub core: Handle,
    pub metrics: std::sync::Arc<Metrics>,
}

#[tonic::async_trait]
impl v1::work_service_server::WorkService for WorkServer {
    type AttendStream = Pin<Box<dyn Stream<Item = Result<v1::AttendResponse, Status>> + Send>>;

    async fn attend(
        &self,
        request: Request<Streaming<v1::AttendRequest>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let mut incoming = Incoming {
            frames: request.into_inner(),
            assembler: Assembler::default(),
            metrics: self.metrics.clone(),
        };
        let (sender, responses) = mpsc::channel(FRAME_QUEUE);
        let core = self.core.clone();
        let metrics = self.metrics.clone();
        // The first message comes after the headers of the answer, so it cannot be waited for here.
        tokio::spawn(async move {
            let first = tokio::time::timeout(REGISTRATION_TIMEOUT, incoming.next()).await;
            let attended = match first {
                Ok(Ok(Some(WorkerMessage::Registration(registration)))) => {
                    register(&core, registration).await
                }
                Ok(Err(status)) => Err(status),
                _ => Err(Status::invalid_argument(
                    "the first message must be a registration",
                )),
            };
            match attended {
                Ok(attended) => attend(core, attended, incoming, sender, metrics).await,
                // A worker that has hung up does not mind.
                Err(status) => drop(sender.send(Err(status)).await),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

async fn register(core: &Handle, registration: Registration) -> Result<Attended, Status> {
    check_versions(&registration).map_err(|error| to_status(&error))?;
    let attended = core
        .ask(|answer| Command::Attend(registration, answer))
        .await;
    attended
        .and_then(|attended| attended)
        .map_err(|error| to_status(&error))
}

/// Two programs whose words or arithmetic differ must not work on one model.
fn check_versions(registration: &Registration) -> Result<(), TaskError> {
    let mismatch = |what: &str, theirs: &str, ours: &str| TaskError {
        kind: ErrorKind::Usage,
        message: format!("the worker has {what} {theirs}, the coordinator {ours}"),
        causes: Vec::new(),
        hint: Some("start both from the same version of clientele".into()),
    };
    if registration.protocol_version != PROTOCOL_VERSION {
        let theirs = registration.protocol_version.to_string();
        let ours = PROTOCOL_VERSION.to_string();
        return Err(mismatch("protocol version", &theirs, &ours));
    }
    if registration.algorithm_version != ALGORITHM_VERSION {
        let theirs = &registration.algorithm_version;
        return Err(mismatch("algorithm version", theirs, ALGORITHM_VERSION));
    }
    Ok(())
}

/// Carries messages both ways until the worker leaves, is lost, or is to go.
async fn attend(
    core: Handle,
    attended: Attended,
    mut incoming: Incoming,
    responses: mpsc::Sender<Result<v1::AttendResponse, Status>>,
    metrics: std::sync::Arc<Metrics>,
) {
    let Attended {
        worker,
        mut messages,
    } = attended;
    let welcome = CoordinatorMessage::Welcome {
        worker,
        heartbeat_ms: u32::try_from(HEARTBEAT.as_millis()).unwrap_or(u32::MAX),
    };
    // A slow network must not keep answers from being read, so each way has a task of its own.
    let writing = tokio::spawn(async move {
        let mut next = Some(welcome);
        while let Some(message) = next {
            for frame in frames(encode_coordinator_message(&message)) {
                metrics.bytes_to_workers.inc_by(frame.data.len() as u64);
                let response = v1::AttendResponse { frame: Some(frame) };
                if responses.send(Ok(response)).await.is_err() {
                    return "its connection is closed";
                }
            }
            next = messages.recv().await;
        }
        // The core has let go of it: nothing was heard of it for too long, or it did not take its messages.
        let status =
            Status::aborted("nothing was heard of this worker for too long; register again");
        let _ = responses.send(Err(status)).await;
        "it was disconnected"
    });
    let abort = writing.abort_handle();
    let reading = async {
        loop {
            let command = match incoming.next().await {
                Ok(Some(message)) => to_command(worker, message),
                Ok(None) => return "it has closed its stream".to_owned(),
                Err(status) => return status.message().to_owned(),
            };
            if !core.tell(command).await {
                return "the coordinator is shutting down".to_owned();
            }
        }
    };
    let reason = tokio::select! {
        biased;
        reason = reading => reason,
        reason = writing => reason.unwrap_or("its connection is closed").to_owned(),
    };
    abort.abort();
    core.tell(Command::Event(Event::Lost(worker, reason))).await;
}

fn to_command(worker: WorkerId, message: WorkerMessage) -> Command {
    match message {
        WorkerMessage::Reply { reply, stage_hash } => Command::Reply(worker, reply, stage_hash),
        WorkerMessage::RunOpened { key, resident } => {
            Command::Event(Event::RunOpened(worker, key, resident))
        }
        WorkerMessage::Draining => Command::Event(Event::Draining(worker)),
        // Registering twice says no more than that it is alive.
        WorkerMessage::Heartbeat | WorkerMessage::Registration(_) => {
            Command::Event(Event::Heartbeat(worker))
        }
    }
}

struct Incoming {
    frames: Streaming<v1::AttendRequest>,
    assembler: Assembler,
    metrics: std::sync::Arc<Metrics>,
}

impl Incoming {
    async fn next(&mut self) -> Result<Option<WorkerMessage>, Status> {
        while let Some(request) = self.frames.message().await? {
            let frame = request.frame.unwrap_or_default();
            self.metrics
                .bytes_from_workers
                .inc_by(frame.data.len() as u64);
            let whole = self.assembler.push(frame);
            let whole = whole.map_err(|error| Status::invalid_argument(error.to_string()))?;
            if let Some(bytes) = whole {
                let message = clientele_proto::decode_worker_message(&bytes);
                return message
                    .map(Some)
                    .map_err(|error| Status::invalid_argument(error.to_string()));
            }
        }
        Ok(None)
    }
}
