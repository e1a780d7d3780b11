//! What clients ask of a coordinator. Whether a job makes sense is for [`FitSpec::check`] to say, in the user's words.

use clientele_data::NullPolicy;
use clientele_data::transform::TransformKind;
use clientele_protocol::jobs::{FitJob, JobProgress, JobState, JobStatus, WorkerStatus};
use clientele_protocol::{FitSpec, WorkerId};

use crate::check::{self, wire_size};
use crate::{WireError, v1};

impl From<&FitJob> for v1::FitJob {
    fn from(job: &FitJob) -> Self {
        let spec = &job.spec;
        let (k_min, k_max) = spec.k_range;
        Self {
            tables: job.tables.iter().map(Into::into).collect(),
            id_column: job.id.clone(),
            columns: job.columns.clone(),
            value_column: job.value.clone(),
            nulls: nulls_name(job.nulls).to_owned(),
            out: Some((&job.out).into()),
            k_min: wire_size(k_min),
            k_max: wire_size(k_max),
            n_restarts: spec.n_restarts,
            init: spec.init.iter().flatten().flatten().copied().collect(),
            seed: spec.seed,
            transform: transform_name(spec.transform).to_owned(),
            max_iter: spec.max_iter,
            tol: spec.tol,
            halving: spec.halving,
            story: job.story.clone().into_bytes(),
            adopt_out: job.adopt_out,
            wait_for_workers_ms: job.wait_for_workers_ms,
        }
    }
}

impl TryFrom<v1::FitJob> for FitJob {
    type Error = WireError;

    fn try_from(message: v1::FitJob) -> Result<Self, WireError> {
        let tables = message.tables.into_iter();
        Ok(Self {
            tables: tables
                .map(|table| check::location("tables", Some(table)))
                .collect::<Result<_, _>>()?,
            id: message.id_column,
            columns: message.columns,
            value: message.value_column,
            nulls: nulls(&message.nulls)?,
            out: check::location("out", message.out)?,
            spec: FitSpec {
                k_range: (message.k_min as usize, message.k_max as usize),
                n_restarts: message.n_restarts,
                init: init(&message.init, message.k_min, message.k_max)?,
                seed: message.seed,
                transform: transform_kind(&message.transform)?,
                max_iter: message.max_iter,
                tol: message.tol,
                halving: message.halving,
            },
            story: check::text("story", message.story)?,
            adopt_out: message.adopt_out,
            wait_for_workers_ms: message.wait_for_workers_ms,
        })
    }
}

/// Starting centroids as rows: there are as many as clusters, and their number is fixed.
fn init(values: &[f64], k_min: u32, k_max: u32) -> Result<Option<Vec<Vec<f64>>>, WireError> {
    if values.is_empty() {
        return Ok(None);
    }
    check::within("k_max", k_max, k_min.into()..=k_min.into())?;
    let n_clusters = check::size("k_min", k_min, 1..=values.len() as i128)?;
    let n_features = values.len() / n_clusters;
    check::shape("init", values.len(), n_clusters * n_features)?;
    Ok(Some(
        values
            .chunks_exact(n_features)
            .map(<[f64]>::to_vec)
            .collect(),
    ))
}

const NULLS: [NullPolicy; 3] = [NullPolicy::Impute, NullPolicy::Fail, NullPolicy::Drop];
const TRANSFORMS: [TransformKind; 3] = [
    TransformKind::Auto,
    TransformKind::Zscore,
    TransformKind::None,
];

fn nulls_name(nulls: NullPolicy) -> &'static str {
    match nulls {
        NullPolicy::Impute => "impute",
        NullPolicy::Fail => "fail",
        NullPolicy::Drop => "drop",
    }
}

fn nulls(name: &str) -> Result<NullPolicy, WireError> {
    let mut known = NULLS.into_iter();
    known
        .find(|nulls| nulls_name(*nulls) == name)
        .ok_or_else(|| check::bad_text("nulls", name, "`impute`, `fail` or `drop`"))
}

fn transform_name(kind: TransformKind) -> &'static str {
    match kind {
        TransformKind::Auto => "auto",
        TransformKind::Zscore => "zscore",
        TransformKind::None => "none",
    }
}

fn transform_kind(name: &str) -> Result<TransformKind, WireError> {
    let mut known = TRANSFORMS.into_iter();
    known
        .find(|kind| transform_name(*kind) == name)
        .ok_or_else(|| check::bad_text("transform", name, "`auto`, `zscore` or `none`"))
}

impl From<JobState> for v1::JobState {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Queued => Self::Queued,
            JobState::Running => Self::Running,
            JobState::Publishing => Self::Publishing,
            JobState::Done => Self::Done,
            JobState::Failed => Self::Failed,
            JobState::Cancelled => Self::Cancelled,
        }
    }
}

impl From<&JobStatus> for v1::JobStatus {
    fn from(status: &JobStatus) -> Self {
        Self {
            run: status.run.clone(),
            out: Some((&status.out).into()),
            state: v1::JobState::from(status.state).into(),
            progress: status.progress.as_ref().map(Into::into),
            error: status.error.as_ref().map(Into::into),
            summary: status.summary.clone().unwrap_or_default().into_bytes(),
            submitted_ms: status.submitted_ms,
            epoch: status.epoch,
        }
    }
}

impl TryFrom<v1::JobStatus> for JobStatus {
    type Error = WireError;

    fn try_from(message: v1::JobStatus) -> Result<Self, WireError> {
        let state = match message.state() {
            v1::JobState::Queued => JobState::Queued,
            v1::JobState::Running => JobState::Running,
            v1::JobState::Publishing => JobState::Publishing,
            v1::JobState::Done => JobState::Done,
            v1::JobState::Failed => JobState::Failed,
            v1::JobState::Cancelled => JobState::Cancelled,
            v1::JobState::Unspecified => return Err(check::unknown("state", message.state, 1..=6)),
        };
        let summary = check::text("summary", message.summary)?;
        Ok(Self {
            run: check::run_name(message.run)?,
            out: check::location("out", message.out)?,
            state,
            progress: message.progress.map(Into::into),
            error: message.error.map(TryInto::try_into).transpose()?,
            summary: (!summary.is_empty()).then_some(summary),
            submitted_ms: message.submitted_ms,
            epoch: message.epoch,
        })
    }
}

impl From<&JobProgress> for v1::Progress {
    fn from(progress: &JobProgress) -> Self {
        Self {
            stage: progress.stage.clone(),
            n_done: progress.n_done,
            n_parts: progress.n_parts,
            n_rows: progress.n_rows,
            pass: progress.pass,
            n_live: progress.n_live,
            n_moved: progress.n_moved,
            inertia: progress.inertia,
            elapsed_ms: progress.elapsed_ms,
            running_ms: progress.running_ms,
            is_waiting: progress.is_waiting,
        }
    }
}

impl From<v1::Progress> for JobProgress {
    fn from(message: v1::Progress) -> Self {
        Self {
            stage: message.stage,
            n_done: message.n_done,
            n_parts: message.n_parts,
            n_rows: message.n_rows,
            pass: message.pass,
            n_live: message.n_live,
            n_moved: message.n_moved,
            inertia: message.inertia,
            elapsed_ms: message.elapsed_ms,
            running_ms: message.running_ms,
            is_waiting: message.is_waiting,
        }
    }
}

impl From<&WorkerStatus> for v1::WorkerStatus {
    fn from(status: &WorkerStatus) -> Self {
        Self {
            worker_id: status.worker.0,
            name: status.name.clone(),
            devices: status.devices.clone(),
            n_shards: status.n_shards,
            rows_per_second: status.rows_per_second,
            heard_ms: status.heard_ms,
            n_leased: status.n_leased,
        }
    }
}

impl From<v1::WorkerStatus> for WorkerStatus {
    fn from(message: v1::WorkerStatus) -> Self {
        Self {
            worker: WorkerId(message.worker_id),
            name: message.name,
            devices: message.devices,
            n_shards: message.n_shards,
            rows_per_second: message.rows_per_second,
            heard_ms: message.heard_ms,
            n_leased: message.n_leased,
        }
    }
}
