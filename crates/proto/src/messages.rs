//! What goes over the stream between the coordinator and a worker.

use std::sync::Arc;
use std::time::Duration;

use clientele_data::{ErrorKind, Location};
use clientele_protocol::cluster::{
    CoordinatorMessage, Digest, OpenRun, Registration, WorkerMessage,
};
use clientele_protocol::{PartId, Record, Reply, RowsBy, RunKey, StageSeq, TaskError, WorkerId};
use prost::Message;

use crate::check::{self, required};
use crate::v1::coordinator_message::Message as FromCoordinator;
use crate::v1::reply::Body;
use crate::v1::worker_message::Message as FromWorker;
use crate::{WireError, transform, v1};

/// Encodes what a worker says; [`crate::frames`] cuts it.
pub fn encode_worker_message(message: &WorkerMessage) -> Vec<u8> {
    v1::WorkerMessage::from(message).encode_to_vec()
}

/// Decodes what [`crate::Assembler`] has put together.
///
/// # Errors
/// [`WireError`] when no worker of this version would have said that.
pub fn decode_worker_message(bytes: &[u8]) -> Result<WorkerMessage, WireError> {
    check::decode::<v1::WorkerMessage>("WorkerMessage", bytes)?.try_into()
}

/// Encodes what the coordinator says; [`crate::frames`] cuts it.
pub fn encode_coordinator_message(message: &CoordinatorMessage) -> Vec<u8> {
    v1::CoordinatorMessage::from(message).encode_to_vec()
}

/// Decodes what [`crate::Assembler`] has put together.
///
/// # Errors
/// [`WireError`] when no coordinator of this version would have said that.
pub fn decode_coordinator_message(bytes: &[u8]) -> Result<CoordinatorMessage, WireError> {
    check::decode::<v1::CoordinatorMessage>("CoordinatorMessage", bytes)?.try_into()
}

/// Encodes what a stage has come to, for the log of a run.
pub fn encode_record(record: &Record) -> Vec<u8> {
    let message = v1::Record {
        seq: record.seq.0,
        answer: Some((&record.answer).into()),
        ran: ran_to_wire(&record.ran),
        n_rescued: record.n_rescued,
    };
    message.encode_to_vec()
}

/// Decodes what [`encode_record`] has written.
///
/// # Errors
/// [`WireError`] when these are other bytes.
pub fn decode_record(bytes: &[u8]) -> Result<Record, WireError> {
    let message: v1::Record = check::decode("Record", bytes)?;
    Ok(Record {
        seq: StageSeq(message.seq),
        answer: required("answer", message.answer)?.try_into()?,
        ran: ran_from_wire(message.ran),
        n_rescued: message.n_rescued,
    })
}

impl From<&WorkerMessage> for v1::WorkerMessage {
    fn from(message: &WorkerMessage) -> Self {
        let message = match message {
            WorkerMessage::Registration(registration) => {
                FromWorker::Registration(registration.into())
            }
            WorkerMessage::Heartbeat => FromWorker::Heartbeat(v1::Heartbeat {}),
            WorkerMessage::RunOpened { key, resident } => FromWorker::RunOpened(v1::RunOpened {
                key: Some(key.into()),
                error: resident.as_ref().err().map(Into::into),
                resident: match resident {
                    Ok(parts) => parts.iter().map(|part| part.0).collect(),
                    Err(_) => Vec::new(),
                },
            }),
            WorkerMessage::Reply { reply, stage_hash } => {
                FromWorker::Reply(reply_to_wire(reply, stage_hash))
            }
            WorkerMessage::Draining => FromWorker::Draining(v1::Draining {}),
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<v1::WorkerMessage> for WorkerMessage {
    type Error = WireError;

    fn try_from(message: v1::WorkerMessage) -> Result<Self, WireError> {
        Ok(match required("message", message.message)? {
            FromWorker::Registration(registration) => Self::Registration(registration.into()),
            FromWorker::Heartbeat(v1::Heartbeat {}) => Self::Heartbeat,
            FromWorker::RunOpened(v1::RunOpened {
                key,
                error,
                resident,
            }) => Self::RunOpened {
                key: run_key(key)?,
                resident: match error {
                    None => Ok(resident.into_iter().map(PartId).collect()),
                    Some(error) => Err(error.try_into()?),
                },
            },
            FromWorker::Reply(reply) => Self::Reply {
                stage_hash: check::digest("stage_hash", &reply.stage_hash)?,
                reply: Box::new(reply.try_into()?),
            },
            FromWorker::Draining(v1::Draining {}) => Self::Draining,
        })
    }
}

impl From<&CoordinatorMessage> for v1::CoordinatorMessage {
    fn from(message: &CoordinatorMessage) -> Self {
        let message = match message {
            CoordinatorMessage::Welcome {
                worker,
                heartbeat_ms,
            } => FromCoordinator::Welcome(v1::Welcome {
                worker_id: worker.0,
                heartbeat_ms: *heartbeat_ms,
            }),
            CoordinatorMessage::OpenRun(run) => FromCoordinator::OpenRun(run.into()),
            CoordinatorMessage::Transform { key, transform } => {
                FromCoordinator::Transform(v1::Transform {
                    key: Some(key.into()),
                    json: transform::encode(transform),
                })
            }
            CoordinatorMessage::OpenStage { key, seq, stage } => {
                FromCoordinator::OpenStage(v1::OpenStage {
                    key: Some(key.into()),
                    seq: seq.0,
                    stage: stage.to_vec(),
                })
            }
            CoordinatorMessage::Lease {
                key,
                seq,
                stage_hash,
                parts,
            } => FromCoordinator::Lease(v1::Lease {
                key: Some(key.into()),
                seq: seq.0,
                stage_hash: stage_hash.as_bytes().to_vec(),
                parts: parts.iter().map(|part| part.0).collect(),
            }),
            CoordinatorMessage::CloseRun(key) => FromCoordinator::CloseRun(v1::CloseRun {
                key: Some(key.into()),
            }),
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<v1::CoordinatorMessage> for CoordinatorMessage {
    type Error = WireError;

    fn try_from(message: v1::CoordinatorMessage) -> Result<Self, WireError> {
        Ok(match required("message", message.message)? {
            FromCoordinator::Welcome(v1::Welcome {
                worker_id,
                heartbeat_ms,
            }) => Self::Welcome {
                worker: WorkerId(worker_id),
                heartbeat_ms: check::within("heartbeat_ms", heartbeat_ms, 1..=u32::MAX.into())?,
            },
            FromCoordinator::OpenRun(run) => Self::OpenRun(run.try_into()?),
            FromCoordinator::Transform(v1::Transform { key, json }) => Self::Transform {
                key: run_key(key)?,
                transform: Arc::new(transform::decode(&json)?),
            },
            FromCoordinator::OpenStage(v1::OpenStage { key, seq, stage }) => Self::OpenStage {
                key: run_key(key)?,
                seq: StageSeq(seq),
                stage: Arc::new(stage),
            },
            FromCoordinator::Lease(lease) => Self::Lease {
                key: run_key(lease.key)?,
                seq: StageSeq(lease.seq),
                stage_hash: check::digest("stage_hash", &lease.stage_hash)?,
                parts: parts(lease.parts)?,
            },
            FromCoordinator::CloseRun(v1::CloseRun { key }) => Self::CloseRun(run_key(key)?),
        })
    }
}

impl From<&Registration> for v1::Registration {
    fn from(registration: &Registration) -> Self {
        let registration = registration.clone();
        Self {
            protocol_version: registration.protocol_version,
            algorithm_version: registration.algorithm_version,
            name: registration.name,
            devices: registration.devices,
            memory_bytes: registration.memory_bytes,
            n_threads: registration.n_threads,
            stores: registration.stores,
        }
    }
}

impl From<v1::Registration> for Registration {
    fn from(message: v1::Registration) -> Self {
        Self {
            protocol_version: message.protocol_version,
            algorithm_version: message.algorithm_version,
            name: message.name,
            devices: message.devices,
            memory_bytes: message.memory_bytes,
            n_threads: message.n_threads,
            stores: message.stores,
        }
    }
}

impl From<&OpenRun> for v1::OpenRun {
    fn from(run: &OpenRun) -> Self {
        Self {
            key: Some((&run.key).into()),
            out: Some((&run.out).into()),
            nonce: run.nonce.clone(),
            manifest_hash: run.manifest_hash.as_bytes().to_vec(),
        }
    }
}

impl TryFrom<v1::OpenRun> for OpenRun {
    type Error = WireError;

    fn try_from(message: v1::OpenRun) -> Result<Self, WireError> {
        Ok(Self {
            key: run_key(message.key)?,
            out: check::location("out", message.out)?,
            nonce: message.nonce,
            manifest_hash: check::digest("manifest_hash", &message.manifest_hash)?,
        })
    }
}

fn reply_to_wire(reply: &Reply, stage_hash: &Digest) -> v1::Reply {
    let body = match &reply.body {
        Ok(answer) => Body::Answer(answer.into()),
        Err(error) => Body::Error(error.into()),
    };
    v1::Reply {
        key: Some((&reply.key).into()),
        seq: reply.seq.0,
        stage_hash: stage_hash.as_bytes().to_vec(),
        parts: reply.parts.iter().map(|part| part.0).collect(),
        ran: ran_to_wire(&reply.ran),
        n_rescued: reply.n_rescued,
        elapsed_us: u64::try_from(reply.elapsed.as_micros()).unwrap_or(u64::MAX),
        body: Some(body),
    }
}

impl TryFrom<v1::Reply> for Reply {
    type Error = WireError;

    /// Without the stage's hash, which is for whoever asked.
    fn try_from(message: v1::Reply) -> Result<Self, WireError> {
        let body = match required("body", message.body)? {
            Body::Answer(answer) => Ok(answer.try_into()?),
            Body::Error(error) => Err(error.try_into()?),
        };
        Ok(Self {
            key: run_key(message.key)?,
            seq: StageSeq(message.seq),
            parts: parts(message.parts)?,
            body,
            ran: ran_from_wire(message.ran),
            n_rescued: message.n_rescued,
            elapsed: Duration::from_micros(message.elapsed_us),
        })
    }
}

fn ran_to_wire(ran: &[RowsBy]) -> Vec<v1::RowsBy> {
    let to_wire = |ran: &RowsBy| v1::RowsBy {
        backend: ran.backend.clone(),
        n_rows: ran.n_rows,
    };
    ran.iter().map(to_wire).collect()
}

fn ran_from_wire(ran: Vec<v1::RowsBy>) -> Vec<RowsBy> {
    let from_wire = |ran: v1::RowsBy| RowsBy {
        backend: ran.backend,
        n_rows: ran.n_rows,
    };
    ran.into_iter().map(from_wire).collect()
}

impl From<&RunKey> for v1::RunKey {
    fn from(key: &RunKey) -> Self {
        Self {
            run: key.run.clone(),
            epoch: key.epoch,
        }
    }
}

fn run_key(key: Option<v1::RunKey>) -> Result<RunKey, WireError> {
    let v1::RunKey { run, epoch } = required("key", key)?;
    Ok(RunKey {
        run: check::run_name(run)?,
        epoch,
    })
}

fn parts(parts: Vec<u32>) -> Result<Vec<PartId>, WireError> {
    match parts.is_empty() {
        true => Err(WireError::Missing { field: "parts" }),
        false => Ok(parts.into_iter().map(PartId).collect()),
    }
}

impl From<&Location> for v1::Location {
    fn from(location: &Location) -> Self {
        Self {
            store: location.store().to_owned(),
            key: location.key().to_owned(),
        }
    }
}

impl From<&TaskError> for v1::TaskError {
    fn from(error: &TaskError) -> Self {
        Self {
            kind: v1::ErrorKind::from(error.kind).into(),
            message: error.message.clone(),
            causes: error.causes.clone(),
            hint: error.hint.clone(),
        }
    }
}

impl TryFrom<v1::TaskError> for TaskError {
    type Error = WireError;

    fn try_from(message: v1::TaskError) -> Result<Self, WireError> {
        let kind = match message.kind() {
            v1::ErrorKind::Bug => ErrorKind::Bug,
            v1::ErrorKind::Usage => ErrorKind::Usage,
            v1::ErrorKind::Input => ErrorKind::Input,
            v1::ErrorKind::Changed => ErrorKind::Changed,
            v1::ErrorKind::Transient => ErrorKind::Transient,
            v1::ErrorKind::Conflict => ErrorKind::Conflict,
            v1::ErrorKind::Limit => ErrorKind::Limit,
            v1::ErrorKind::Auth => ErrorKind::Auth,
            v1::ErrorKind::Unspecified => return Err(check::unknown("kind", message.kind, 1..=8)),
        };
        Ok(Self {
            kind,
            message: message.message,
            causes: message.causes,
            hint: message.hint,
        })
    }
}

impl From<ErrorKind> for v1::ErrorKind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Bug => Self::Bug,
            ErrorKind::Usage => Self::Usage,
            ErrorKind::Input => Self::Input,
            ErrorKind::Changed => Self::Changed,
            ErrorKind::Transient => Self::Transient,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Limit => Self::Limit,
            ErrorKind::Auth => Self::Auth,
        }
    }
}
