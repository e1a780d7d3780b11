//! One fit from a table to a committed run directory, with workers in this process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use clientele_coordinator::drive::drive;
use clientele_coordinator::machine::{Machine as Coordinator, Outcome, Place};
use clientele_coordinator::model::Model;
use clientele_data::DataError;
use clientele_data::manifest::{Columns, Manifest, NullPolicy, ShardId, TableSpec};
use clientele_data::read::{Projection, RawBlock, read_shard};
use clientele_data::run_dir::{RunDir, WORK};
use clientele_data::transform::TransformKind;
use clientele_features::FitSettings;
use clientele_protocol::{FitSpec, Job as WorkerJob, RunKey, WorkerChannel, WorkerEvent, WorkerId};
use clientele_worker::{InProcess, Resources, Worker, WorkerOptions};

use crate::args::{KRange, ModelArgs, NullsArg, TransformArg};
use crate::evidence::{Story, evidence};
use crate::failure::Failure;
use crate::machine::Machine;
use crate::progress::Display;
use crate::publish;
use crate::summary::Summary;

/// What is to be fitted, from what, and how it is told.
pub struct Job {
    /// The feature table, pinned.
    pub planned: Planned,
    /// The model.
    pub spec: FitSpec,
    /// Processors and memory.
    pub machine: Machine,
    /// Words.
    pub story: Story,
}

/// A pinned table.
pub struct Planned {
    /// What is pinned.
    pub manifest: Arc<Manifest>,
    /// Seconds it took.
    pub seconds: f64,
}

/// Pins `table`.
///
/// # Errors
/// When its files or columns are not what they must be.
pub fn plan(table: &TableSpec) -> Result<Planned, Failure> {
    let started = Instant::now();
    let manifest = Arc::new(Manifest::plan(table)?);
    Ok(Planned {
        manifest,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Fits `job` and publishes it in `dir`.
///
/// # Errors
/// Whatever ends the run; then `dir` holds nothing that looks finished.
pub fn run(job: &Job, dir: RunDir) -> Result<Summary, Failure> {
    let started = Instant::now();
    let manifest = &job.planned.manifest;
    let outcome = fit(job, manifest, &dir)?;
    for warning in &outcome.fitted.warnings {
        eprintln!("warning: {warning}");
    }
    let publishing = Instant::now();
    let (files, mut summary) = describe(&job.spec, manifest, &outcome, &job.story)?;
    dir.write_files(&files)?;
    summary.run = path_of(&dir).display().to_string();
    dir.commit()?;
    summary.note("plan", job.planned.seconds);
    summary.note("publish", publishing.elapsed().as_secs_f64());
    let total = job.planned.seconds + started.elapsed().as_secs_f64();
    summary.note("total", total);
    Ok(summary)
}

/// What is published of a finished fit beside the assignments, and what is said of it: a pure function, so that a run that is
/// published twice is published with the same bytes.
///
/// # Errors
/// Faults of this program.
pub fn describe(
    spec: &FitSpec,
    manifest: &Manifest,
    outcome: &Outcome,
    story: &Story,
) -> Result<(publish::Files, Summary), Failure> {
    let model =
        Model::new(spec, outcome).map_err(|e| Failure::bug("the model is not JSON").because(&e))?;
    let evidence = evidence(&outcome.fitted, &model, story);
    let (files, personas) = publish::files(spec, manifest, &model, &evidence)?;
    let mut summary = Summary::new(&model, &personas, &story.currency, outcome);
    for (stage, seconds) in by_stage(outcome) {
        summary.note(stage, seconds);
    }
    Ok((files, summary))
}

/// The folder of a run of this process.
pub fn path_of(dir: &RunDir) -> &Path {
    let path = dir.folder().local_path();
    path.expect("a run of one process is on a disk")
}

fn fit(job: &Job, manifest: &Arc<Manifest>, dir: &RunDir) -> Result<Outcome, Failure> {
    let key = RunKey {
        run: dir.folder().to_string(),
        epoch: 0,
    };
    let started = Instant::now();
    let n_workers = job.machine.n_workers as usize;
    let coordinator = Coordinator::new(
        key.clone(),
        job.spec.clone(),
        manifest.clone(),
        Place::InProcess { n_workers },
        started.elapsed(),
    )?;
    let worker_job = WorkerJob {
        key,
        manifest: manifest.clone(),
        assignments_dir: dir.folder().child("assignments")?,
        // After a crash a run of one process begins anew.
        work_dir: dir.work_dir().for_scratch(),
        spill_dir: path_of(dir).join(WORK),
    };
    let (sender, events) = mpsc::channel::<(WorkerId, WorkerEvent)>();
    let mut workers: BTreeMap<WorkerId, Box<dyn WorkerChannel>> = BTreeMap::new();
    for nth in 0..job.machine.n_workers {
        let options = WorkerOptions {
            engine: job.machine.engine.clone(),
            n_threads: share(job.machine.n_threads, job.machine.n_workers, nth),
            memory_bytes: job.machine.memory_bytes / u64::from(job.machine.n_workers),
        };
        let (job, resources) = (worker_job.clone(), Resources::open(&options)?);
        let worker = match n_workers {
            1 => Worker::alone(job, resources),
            _ => Worker::new(job, resources),
        };
        workers.insert(
            WorkerId(nth),
            Box::new(InProcess::start(worker, WorkerId(nth), sender.clone())),
        );
    }
    drop(sender);
    let mut display = Display::new();
    Ok(drive(
        coordinator,
        &workers,
        &events,
        started,
        &mut |progress| display.show(progress),
    )?)
}

/// Threads of worker `nth` when `n_threads` are dealt out as evenly as possible; at least one.
fn share(n_threads: usize, n_workers: u32, nth: u32) -> usize {
    let (n_workers, nth) = (n_workers as usize, nth as usize);
    (n_threads / n_workers + usize::from(nth < n_threads % n_workers)).max(1)
}

/// The stages of the summary: statistics, ingest and the search for duplicates are one to the user.
fn by_stage(outcome: &Outcome) -> Vec<(&'static str, f64)> {
    ["ingest", "seeding", "passes", "final"]
        .map(|stage| {
            let belongs = |name: &str| {
                name == stage || stage == "ingest" && matches!(name, "statistics" | "duplicates")
            };
            (
                stage,
                outcome
                    .seconds
                    .iter()
                    .filter(|(name, _)| belongs(name))
                    .map(|(_, seconds)| seconds)
                    .sum(),
            )
        })
        .into()
}

/// Merges flags over settings of a config over defaults.
///
/// # Errors
/// Settings that are not what their flags take.
pub fn fit_spec(
    args: &ModelArgs,
    settings: &FitSettings,
) -> Result<(FitSpec, NullPolicy), Failure> {
    let k = match (args.k, &settings.k) {
        (Some(k), _) => k,
        (None, Some(text)) => text
            .parse::<KRange>()
            .map_err(|why| Failure::usage(format!("`fit.k`: {why}")))?,
        (None, None) => KRange { min: 2, max: 8 },
    };
    let transform = setting(
        args.transform,
        "fit.transform",
        settings.transform.as_deref(),
    )?;
    let nulls = setting(args.nulls, "fit.nulls", settings.nulls.as_deref())?;
    let spec = FitSpec {
        k_range: (k.min, k.max),
        n_restarts: args.restarts.or(settings.restarts).unwrap_or(4),
        init: None,
        seed: args.seed.or(settings.seed).unwrap_or(1),
        transform: match transform {
            None | Some(TransformArg::Auto) => TransformKind::Auto,
            Some(TransformArg::Zscore) => TransformKind::Zscore,
            Some(TransformArg::None) => TransformKind::None,
        },
        max_iter: args.max_iter.or(settings.max_iter).unwrap_or(100),
        tol: args.tol.or(settings.tol).unwrap_or(1e-4),
        halving: !args.no_halving && settings.halving.unwrap_or(true),
    };
    spec.check()?;
    let nulls = match nulls {
        None | Some(NullsArg::Impute) => NullPolicy::Impute,
        Some(NullsArg::Fail) => NullPolicy::Fail,
        Some(NullsArg::Drop) => NullPolicy::Drop,
    };
    Ok((spec, nulls))
}

/// A flag, or the word of a config in its place.
pub fn setting<T: clap::ValueEnum>(
    flag: Option<T>,
    key: &str,
    word: Option<&str>,
) -> Result<Option<T>, Failure> {
    match (flag, word) {
        (Some(flag), _) => Ok(Some(flag)),
        (None, None) => Ok(None),
        (None, Some(word)) => T::from_str(word, true).map(Some).map_err(|_| {
            let valid: Vec<String> = T::value_variants()
                .iter()
                .filter_map(|v| v.to_possible_value())
                .map(|v| v.get_name().into())
                .collect();
            Failure::usage(format!(
                "`{key}` is `{word}`; it must be one of {}",
                valid.join(", ")
            ))
        }),
    }
}

/// Starting centroids in raw units, one a row, from the columns of `manifest`'s features.
///
/// # Errors
/// As for any table; and when a value is missing.
pub fn read_init(file: &std::path::Path, features: &[String]) -> Result<Vec<Vec<f64>>, Failure> {
    let table = TableSpec {
        inputs: vec![file.display().to_string()],
        id: None,
        columns: Columns::Named(features.to_vec()),
        nulls: NullPolicy::Fail,
        value: None,
    };
    let manifest = Manifest::plan(&table)?;
    let mut rows = Vec::new();
    for shard in 0..manifest.n_shards() {
        read_shard(
            &manifest,
            ShardId(shard),
            &Projection::all(&manifest),
            &mut |block: &mut RawBlock| {
                let row = |idx: usize| {
                    block
                        .columns
                        .iter()
                        .map(|column| column[idx])
                        .collect::<Vec<f64>>()
                };
                rows.extend((0..block.n_rows).map(row));
                Ok::<(), DataError>(())
            },
        )?;
    }
    if rows.iter().flatten().any(|value| !value.is_finite()) {
        return Err(Failure::new(
            clientele_data::ErrorKind::Input,
            format!(
                "a starting centroid in `{}` has a value that is no number",
                file.display()
            ),
        ));
    }
    Ok(rows)
}
