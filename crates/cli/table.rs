//! Jobs and workers of a cluster, for people and for programs.

use clientele_personas::format;
use clientele_protocol::jobs::{JobProgress, JobState, JobStatus, WorkerStatus};
use serde_json::{Value, json};

use crate::progress;

/// Everything, as JSON.
pub fn status_json(jobs: &[JobStatus], workers: &[WorkerStatus]) -> Value {
    json!({
        "jobs": jobs.iter().map(job_json).collect::<Vec<_>>(),
        "workers": workers.iter().map(worker_json).collect::<Vec<_>>(),
    })
}

fn job_json(job: &JobStatus) -> Value {
    json!({
        "run": job.run,
        "out": job.out,
        "state": job.state,
        "submitted_ms": job.submitted_ms,
        "epoch": job.epoch,
        "progress": job.progress.as_ref().map(|p| json!({
            "stage": p.stage, "n_done": p.n_done, "n_parts": p.n_parts, "n_rows": p.n_rows, "pass": p.pass,
            "n_live": p.n_live, "n_moved": p.n_moved, "inertia": p.inertia, "elapsed_ms": p.elapsed_ms,
            "running_ms": p.running_ms, "is_waiting": p.is_waiting,
        })),
        "error": job.error.as_ref().map(|e| json!({
            "exit_code": e.kind.exit_code(), "message": e.message, "causes": e.causes, "hint": e.hint,
        })),
        "summary": job.summary.as_ref().and_then(|text| serde_json::from_str::<Value>(text).ok()),
    })
}

fn worker_json(worker: &WorkerStatus) -> Value {
    json!({
        "worker": worker.worker.0,
        "name": worker.name,
        "devices": worker.devices,
        "n_shards": worker.n_shards,
        "n_leased": worker.n_leased,
        "rows_per_second": worker.rows_per_second,
        "heard_ms": worker.heard_ms,
    })
}

/// Jobs, then workers.
pub fn status_text(jobs: &[JobStatus], workers: &[WorkerStatus]) -> String {
    format!("{}\n{}", jobs_text(jobs), workers_text(workers))
}

/// Jobs, oldest first.
pub fn jobs_text(jobs: &[JobStatus]) -> String {
    if jobs.is_empty() {
        return "no runs\n".into();
    }
    let width = jobs
        .iter()
        .map(|job| job.run.len())
        .max()
        .unwrap_or(0)
        .max(3);
    let mut text = format!("{:<width$}  {:<10}  what\n", "run", "state");
    for job in jobs {
        text += &format!(
            "{:<width$}  {:<10}  {}\n",
            job.run,
            state(job.state),
            what(job)
        );
    }
    text
}

fn what(job: &JobStatus) -> String {
    match (&job.progress, &job.error) {
        (Some(progress), _) => doing(progress),
        (None, Some(error)) => error.message.clone(),
        (None, None) => job.out.to_string(),
    }
}

/// Stage, parts, speed, and how long this stage still takes if it goes on as it did.
fn doing(progress: &JobProgress) -> String {
    let mut text = format!(
        "{} {}/{}",
        progress.stage, progress.n_done, progress.n_parts
    );
    let rest = progress::describe(progress);
    if !rest.is_empty() {
        text += &format!(", {rest}");
    }
    if progress.n_done > 0 && progress.n_done < progress.n_parts {
        let each = progress.elapsed_ms as f64 / progress.n_done as f64;
        let left = each * (progress.n_parts - progress.n_done) as f64 / 1e3;
        text += &format!(", {left:.1} s left in this pass");
    }
    text + &format!(", running {:.0} s", progress.running_ms as f64 / 1e3)
}

fn workers_text(workers: &[WorkerStatus]) -> String {
    if workers.is_empty() {
        return "no workers; start one with `clientele worker --coordinator URL`\n".into();
    }
    let names = workers.iter().map(|worker| worker.name.chars().count());
    let width = names.max().unwrap_or(0).max(6);
    let mut text = format!(
        "{:<width$}  {:>6}  {:>7}  {:>12}  {:>7}  devices\n",
        "worker", "shards", "working", "rows/s", "heard"
    );
    for worker in workers {
        text += &format!(
            "{:<width$}  {:>6}  {:>7}  {:>12}  {:>5.1} s  {}\n",
            worker.name,
            format::count(worker.n_shards),
            format::count(worker.n_leased),
            progress::short(worker.rows_per_second),
            worker.heard_ms as f64 / 1e3,
            worker.devices.join(", ")
        );
    }
    text
}

/// A state in one word.
pub fn state(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Publishing => "publishing",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}
