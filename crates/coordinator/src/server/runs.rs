//! What a coordinator keeps on storage: its jobs in a state folder, and of each run, in the run directory, what the next coordinator
//! needs to go on.
//!
//! Everything is written by create-if-absent or is a pure function of what was, so that two coordinators that believe to lead one run
//! write the same bytes or stand down:
//!
//! ```text
//! STATE/jobs/RUN.json        the job, when it was submitted
//! STATE/summaries/RUN.json   what to tell its clients once the run is committed
//! STATE/ended/RUN.json       how it ended
//! OUT/_work/run              the run that writes here
//! OUT/_work/epochs/000001    one for each coordinator that has led it; the highest leads
//! OUT/_work/nonce            what workers must find
//! OUT/_work/manifest.json    the input, pinned once
//! OUT/_work/log/000012       what stage 12 has come to
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clientele_data::manifest::{Columns, Manifest, TableSpec};
use clientele_data::run_dir::{COMMITTED, RunDir};
use clientele_data::{Created, Folder, Stores};
use clientele_data::{DataError, ErrorKind};
use clientele_protocol::jobs::{FitJob, JobState, JobStatus};
use clientele_protocol::{Record, RunKey, TaskError};
use serde::{Deserialize, Serialize};

use crate::cluster::{Logged, Opened, superseded};
use crate::machine::Outcome;

/// What is written beside the assignments, and what clients are told: a pure function of its arguments.
pub trait Publisher: Send + Sync {
    /// The files of a run and its summary.
    ///
    /// # Errors
    /// What keeps the run from being published.
    fn publish(
        &self,
        job: &FitJob,
        manifest: &Manifest,
        outcome: &Outcome,
    ) -> Result<Publication, TaskError>;
}

/// What a [`Publisher`] makes.
#[derive(Debug)]
pub struct Publication {
    /// Names below the run directory, and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// For clients, as JSON.
    pub summary: String,
}

/// What befalls a coordinator at a step of its cycle; for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Injected {
    /// It dies, as at a power cut.
    Death(String),
    /// It stands still, as on a machine that is put to sleep.
    Stop(String),
}

/// The steps of a coordinator's cycle, for tests: `stage-done` and `stage-logged` are followed by the number of the stage, as in
/// `stage-logged:7`.
pub const STEPS: [&str; 12] = [
    "submitted",
    "made",
    "pinned",
    "marked",
    "claimed",
    "stage-done",
    "stage-logged",
    "publishing",
    "written",
    "announced",
    "committed",
    "ended",
];

/// Storage of one coordinator. Every call may take as long as the storage does.
pub struct Runs {
    stores: Stores,
    state: Folder,
    publisher: Arc<dyn Publisher>,
    injected: Option<Injected>,
    /// Run directories being written.
    open: Mutex<BTreeMap<String, Arc<OpenRun>>>,
}

/// A run directory being written.
struct OpenRun {
    dir: Mutex<Option<RunDir>>,
    work: Folder,
    epoch: u64,
    job: FitJob,
    manifest: Arc<Manifest>,
}

/// A job as it is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Submission {
    /// Its run id.
    pub run: String,
    /// What to do.
    pub job: FitJob,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted_ms: u64,
}

/// How a job ended, as it is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ended {
    state: JobState,
    error: Option<EndedError>,
    summary: Option<String>,
    epoch: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct EndedError {
    exit_code: u8,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Runs {
    /// Remembers jobs in `state`.
    pub fn new(
        stores: Stores,
        state: Folder,
        publisher: Arc<dyn Publisher>,
        injected: Option<Injected>,
    ) -> Self {
        Self {
            stores,
            state,
            publisher,
            injected,
            open: Mutex::default(),
        }
    }

    /// What is to happen here happens, without a word to anybody.
    fn at(&self, step: &str) {
        match &self.injected {
            Some(Injected::Death(at)) if at == step => std::process::abort(),
            Some(Injected::Stop(at)) if at == step => {
                let (this, stop) = (rustix::process::getpid(), rustix::process::Signal::STOP);
                if let Err(error) = rustix::process::kill_process(this, stop) {
                    tracing::error!(step, %error, "this coordinator cannot stand still");
                }
            }
            _ => {}
        }
    }

    /// Remembers a job, so that the next coordinator finds it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the run id is another job's; when the state folder cannot be written to.
    pub fn submit(&self, submission: &Submission) -> Result<Created, TaskError> {
        let name = format!("jobs/{}.json", submission.run);
        let bytes = to_json(submission)?;
        if self.state.create_if_absent(&name, &bytes)? == Created::New {
            self.at("submitted");
            return Ok(Created::New);
        }
        let known: Submission = match self.state.read(&name)? {
            Some(bytes) => from_json(&name, &bytes)?,
            None => return Err(damaged(&name, "it is gone")),
        };
        match known.job == submission.job {
            true => Ok(Created::There),
            false => Err(TaskError {
                kind: ErrorKind::Conflict,
                message: format!("run `{}` is another job", submission.run),
                causes: Vec::new(),
                hint: Some("choose another run id".into()),
            }),
        }
    }

    /// Forgets a job that was not taken after all.
    ///
    /// # Errors
    /// When the state folder cannot be written to.
    pub fn withdraw(&self, run: &str) -> Result<(), TaskError> {
        Ok(self.state.remove(&format!("jobs/{run}.json"))?)
    }

    /// All jobs that are remembered, in the order they were submitted, and how they ended, if they did.
    ///
    /// # Errors
    /// When the state folder cannot be read.
    pub fn remembered(&self) -> Result<Vec<(Submission, Option<JobStatus>)>, TaskError> {
        let mut found = Vec::new();
        for name in self.state.list()? {
            if !name.starts_with("jobs/") || !name.ends_with(".json") {
                continue;
            }
            let Some(bytes) = self.state.read(&name)? else {
                continue;
            };
            let submission: Submission = from_json(&name, &bytes)?;
            let ended_name = format!("ended/{}.json", submission.run);
            let ended = match self.state.read(&ended_name)? {
                Some(bytes) => Some(status(&submission, from_json(&ended_name, &bytes)?)),
                None => None,
            };
            found.push((submission, ended));
        }
        found.sort_by(|(a, _), (b, _)| (a.submitted_ms, &a.run).cmp(&(b.submitted_ms, &b.run)));
        Ok(found)
    }

    /// Opens the run directory of a job: a new one, or where an earlier coordinator left it.
    ///
    /// # Errors
    /// When it cannot be written to, holds something else, or the input is not what it must be.
    pub fn open(&self, run: &str, job: &FitJob) -> Result<Opened, TaskError> {
        let folder = self.stores.folder(&job.out)?;
        // The coordinator before this one committed it and could not say so any more.
        if let Some(summary) = self.committed(run, &folder)? {
            return Ok(Opened::Committed { summary });
        }
        let is_mine = folder.read("_work/run")?.as_deref() == Some(run.as_bytes());
        let dir = match (is_mine, job.adopt_out) {
            (true, _) => RunDir::resume(folder.clone())?,
            (false, true) => RunDir::adopt(folder.clone())?,
            (false, false) => RunDir::create(folder.clone())?,
        };
        let work = dir.work_dir();
        self.at("made");
        // Before it is marked as this run's, so that a plan that fails leaves nothing to resume.
        let (manifest, manifest_hash) = self.pin(&work, job)?;
        self.at("pinned");
        work.create_if_absent("nonce", &random_bytes()?)?;
        work.create_if_absent("run", run.as_bytes())?;
        self.at("marked");
        let nonce = work.read("nonce")?.unwrap_or_default();
        let epoch = claim_epoch(&work)?;
        self.at("claimed");
        // While this one slept on its way here, another may have led the run to its end. From now on none can: this one leads.
        if let Some(summary) = self.committed(run, &folder)? {
            return Ok(Opened::Committed { summary });
        }
        let records = read_log(&work)?;
        let opened = Arc::new(OpenRun {
            dir: Mutex::new(Some(dir)),
            work,
            epoch,
            job: job.clone(),
            manifest: manifest.clone(),
        });
        self.lock().insert(run.to_owned(), opened);
        Ok(Opened::Ready {
            epoch,
            manifest,
            manifest_hash,
            nonce,
            records,
        })
    }

    /// The summary of a run that is committed already.
    fn committed(&self, run: &str, folder: &Folder) -> Result<Option<String>, TaskError> {
        let summary = match folder.size(COMMITTED)? {
            Some(_) => self.summary(run)?,
            None => None,
        };
        if summary.is_some() {
            RunDir::tidy(folder);
        }
        Ok(summary)
    }

    fn pin(&self, work: &Folder, job: &FitJob) -> Result<(Arc<Manifest>, blake3::Hash), TaskError> {
        const NAME: &str = "manifest.json";
        let bytes = match work.read(NAME)? {
            Some(bytes) => bytes,
            None => {
                work.create_if_absent(NAME, &to_json(&self.plan(job)?)?)?;
                work.read(NAME)?
                    .ok_or_else(|| damaged(NAME, "it is gone"))?
            }
        };
        let manifest: Manifest = from_json(NAME, &bytes)?;
        let manifest = manifest.attach(&self.stores)?;
        Ok((Arc::new(manifest), blake3::hash(&bytes)))
    }

    fn plan(&self, job: &FitJob) -> Result<Manifest, DataError> {
        let table = TableSpec {
            inputs: job.tables.iter().map(ToString::to_string).collect(),
            id: job.id.clone(),
            columns: match job.columns.is_empty() {
                true => Columns::AllNumeric,
                false => Columns::Named(job.columns.clone()),
            },
            nulls: job.nulls,
            value: job.value.clone(),
        };
        Manifest::plan_in(&table, &self.stores)
    }

    /// Writes what a stage has come to.
    ///
    /// # Errors
    /// When the run directory cannot be written to.
    pub fn log(&self, key: &RunKey, record: &Record) -> Result<Logged, TaskError> {
        let run = self.opened(&key.run)?;
        if !run.leads()? {
            return Ok(Logged::Superseded);
        }
        self.at(&format!("stage-done:{}", record.seq.0));
        let name = format!("log/{:06}", record.seq.0);
        let bytes = clientele_proto::encode_record(record);
        if run.work.create_if_absent(&name, &bytes)? == Created::New {
            self.at(&format!("stage-logged:{}", record.seq.0));
            return Ok(Logged::Written);
        }
        let found = run.work.read(&name)?;
        let found = found.ok_or_else(|| damaged(&name, "it is gone"))?;
        Ok(Logged::Found(Box::new(decode(&name, &found)?)))
    }

    /// Writes the results and commits them. The summary for clients.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when another coordinator leads the run; when the run directory cannot be written to.
    pub fn publish(&self, key: &RunKey, outcome: &Outcome) -> Result<String, TaskError> {
        let run = self.opened(&key.run)?;
        if !run.leads()? {
            return Err(superseded(&key.run));
        }
        self.at("publishing");
        let started = Instant::now();
        let publication = self.publisher.publish(&run.job, &run.manifest, outcome)?;
        let dir = run
            .dir
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let dir = dir.ok_or_else(|| damaged(&key.run, "it is being published already"))?;
        dir.write_files(&publication.files)?;
        self.at("written");
        let summary = publication.summary;
        let name = format!("summaries/{}.json", key.run);
        self.state.write(&name, summary.as_bytes())?;
        self.at("announced");
        dir.commit()?;
        self.at("committed");
        tracing::info!(
            run = key.run,
            seconds = started.elapsed().as_secs_f64(),
            "committed"
        );
        Ok(summary)
    }

    fn summary(&self, run: &str) -> Result<Option<String>, TaskError> {
        let bytes = self.state.read(&format!("summaries/{run}.json"))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Whether this coordinator leads a run, or another has taken it over or brought it to its end.
    ///
    /// # Errors
    /// When the run directory cannot be read.
    pub fn leads(&self, key: &RunKey) -> Result<bool, TaskError> {
        self.opened(&key.run)?.leads()
    }

    /// Remembers how a job ended and lets go of its run directory.
    ///
    /// # Errors
    /// When the state folder cannot be written to.
    pub fn end(&self, status: &JobStatus) -> Result<(), TaskError> {
        let run = self.lock().remove(&status.run);
        if !status.state.is_final() {
            return Ok(());
        }
        // How a run ends without a result is for the coordinator that leads it to say.
        if let (Some(run), false) = (run, status.state == JobState::Done)
            && !run.leads()?
        {
            return Ok(());
        }
        let ended = Ended {
            state: status.state,
            error: status.error.as_ref().map(|error| EndedError {
                exit_code: error.kind.exit_code(),
                message: error.message.clone(),
                causes: error.causes.clone(),
                hint: error.hint.clone(),
            }),
            summary: status.summary.clone(),
            epoch: status.epoch,
        };
        self.state
            .write(&format!("ended/{}.json", status.run), &to_json(&ended)?)?;
        self.at("ended");
        Ok(())
    }

    /// Lets go of a run directory.
    pub fn let_go(&self, run: &str) {
        self.lock().remove(run);
    }

    fn opened(&self, run: &str) -> Result<Arc<OpenRun>, TaskError> {
        let found = self.lock().get(run).cloned();
        found.ok_or_else(|| damaged(run, "it is not open"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<OpenRun>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenRun {
    /// Whether no later coordinator has claimed the run, and nobody has cleaned it.
    fn leads(&self) -> Result<bool, TaskError> {
        Ok(last_epoch(&self.work)? == self.epoch)
    }
}

fn last_epoch(work: &Folder) -> Result<u64, TaskError> {
    let names = work.child("epochs")?.list()?;
    let epochs = names.iter().filter_map(|name| name.parse().ok());
    Ok(epochs.max().unwrap_or(0))
}

/// Becomes the coordinator of a run: the ones before it stand down when they next write.
fn claim_epoch(work: &Folder) -> Result<u64, TaskError> {
    let mut epoch = last_epoch(work)?;
    loop {
        epoch += 1;
        let name = format!("epochs/{epoch:06}");
        // Random, so that two coordinators are told apart even when an answer gets lost.
        if work.create_if_absent(&name, &random_bytes()?)? == Created::New {
            return Ok(epoch);
        }
    }
}

fn read_log(work: &Folder) -> Result<Vec<Record>, TaskError> {
    let mut records = Vec::new();
    loop {
        let name = format!("log/{:06}", records.len());
        match work.read(&name)? {
            Some(bytes) => records.push(decode(&name, &bytes)?),
            None => return Ok(records),
        }
    }
}

fn decode(name: &str, bytes: &[u8]) -> Result<Record, TaskError> {
    clientele_proto::decode_record(bytes).map_err(|error| damaged(name, &error.to_string()))
}

fn status(submission: &Submission, ended: Ended) -> JobStatus {
    JobStatus {
        run: submission.run.clone(),
        out: submission.job.out.clone(),
        state: ended.state,
        progress: None,
        error: ended.error.map(|error| TaskError {
            kind: ErrorKind::from_exit_code(error.exit_code).unwrap_or(ErrorKind::Bug),
            message: error.message,
            causes: error.causes,
            hint: error.hint,
        }),
        summary: ended.summary,
        submitted_ms: submission.submitted_ms,
        epoch: ended.epoch,
    }
}

fn random_bytes() -> Result<[u8; 16], TaskError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| damaged("the system's random numbers", &error.to_string()))?;
    Ok(bytes)
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, TaskError> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| damaged("a record of a job", &error.to_string()))
}

fn from_json<T: for<'a> Deserialize<'a>>(name: &str, bytes: &[u8]) -> Result<T, TaskError> {
    serde_json::from_slice(bytes).map_err(|error| damaged(name, &error.to_string()))
}

fn damaged(name: &str, why: &str) -> TaskError {
    TaskError {
        kind: ErrorKind::Bug,
        message: format!("`{name}` cannot be used"),
        causes: vec![why.to_owned()],
        hint: None,
    }
}
