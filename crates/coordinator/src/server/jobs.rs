//! `JobsService`: what clients ask.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use clientele_data::{Created, ErrorKind};
use clientele_proto::status::from_error as to_status;
use clientele_proto::v1;
use clientele_protocol::TaskError;
use clientele_protocol::jobs::{FitJob, JobStatus};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::core::{Command, Handle, StorageCalls, now_ms};
use super::runs::{Runs, Submission};

/// Those who watch are told of changes no more often.
const WATCH_EVERY: Duration = Duration::from_millis(200);

/// What a story may weigh.
const MAX_STORY_BYTES: usize = 1 << 20;

/// Serves clients.
pub(super) struct JobsServer {
    pub core: Handle,
    pub runs: Arc<Runs>,
    /// Whether storage may be called on threads of its own.
    pub storage: StorageCalls,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl v1::jobs_service_server::JobsService for JobsServer {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Answer<v1::SubmitResponse> {
        let request = request.into_inner();
        let job = request.fit.ok_or_else(|| invalid("there is no job"))?;
        let job = FitJob::try_from(job).map_err(|error| invalid(&error.to_string()))?;
        check_run(&request.run).map_err(|error| to_status(&error))?;
        let submission = Submission {
            run: request.run,
            job,
            submitted_ms: now_ms(),
        };
        check(&submission.job).map_err(|error| to_status(&error))?;
        // What was answered as taken must be found by the next coordinator, and what was refused must not.
        let run = submission.run.clone();
        let written = submission.clone();
        let created = self.stored(move |runs| runs.submit(&written)).await?;
        let answer = |answer| Command::Submit(Box::new(submission), answer);
        let status = match self.ask(answer).await {
            Ok(status) => status,
            Err(refused) => {
                if created == Created::New {
                    self.stored(move |runs| runs.withdraw(&run)).await?;
                }
                return Err(refused);
            }
        };
        Ok(Response::new(v1::SubmitResponse {
            status: Some((&status).into()),
        }))
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Answer<v1::GetJobResponse> {
        let run = request.into_inner().run;
        let status = self.ask(|answer| Command::Status(run, answer)).await?;
        let (_, workers) = self
            .core
            .ask(Command::List)
            .await
            .map_err(|error| to_status(&error))?;
        Ok(Response::new(v1::GetJobResponse {
            status: Some((&status).into()),
            workers: workers.iter().map(Into::into).collect(),
        }))
    }

    async fn list_jobs(&self, _: Request<v1::ListJobsRequest>) -> Answer<v1::ListJobsResponse> {
        let (jobs, workers) = self
            .core
            .ask(Command::List)
            .await
            .map_err(|error| to_status(&error))?;
        Ok(Response::new(v1::ListJobsResponse {
            jobs: jobs.iter().map(Into::into).collect(),
            workers: workers.iter().map(Into::into).collect(),
        }))
    }

    type WatchJobStream = Pin<Box<dyn Stream<Item = Result<v1::WatchJobResponse, Status>> + Send>>;

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Answer<Self::WatchJobStream> {
        let run = request.into_inner().run;
        let watched = self.ask_watch(run.clone()).await?;
        let (sender, responses) = mpsc::channel(1);
        tokio::spawn(watch(self.core.clone(), run, watched, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Answer<v1::CancelJobResponse> {
        let run = request.into_inner().run;
        let status = self.ask(|answer| Command::Cancel(run, answer)).await?;
        Ok(Response::new(v1::CancelJobResponse {
            status: Some((&status).into()),
        }))
    }
}

impl JobsServer {
    /// Calls storage.
    async fn stored<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Runs) -> Result<T, TaskError> + Send + 'static,
    ) -> Result<T, Status> {
        let runs = self.runs.clone();
        let answer = match self.storage {
            StorageCalls::Inline => call(&runs),
            StorageCalls::Threads => tokio::task::spawn_blocking(move || call(&runs))
                .await
                .unwrap_or_else(|_| Err(bug("storage could not be asked"))),
        };
        answer.map_err(|error| to_status(&error))
    }

    async fn ask(
        &self,
        command: impl FnOnce(tokio::sync::oneshot::Sender<Result<JobStatus, TaskError>>) -> Command,
    ) -> Result<JobStatus, Status> {
        let answer = self.core.ask(command).await;
        answer
            .and_then(|status| status)
            .map_err(|error| to_status(&error))
    }

    async fn ask_watch(&self, run: String) -> Result<tokio::sync::watch::Receiver<u64>, Status> {
        let answer = self.core.ask(|answer| Command::Watch(run, answer)).await;
        answer
            .and_then(|watched| watched)
            .map_err(|error| to_status(&error))
    }
}

async fn watch(
    core: Handle,
    run: String,
    mut watched: tokio::sync::watch::Receiver<u64>,
    responses: mpsc::Sender<Result<v1::WatchJobResponse, Status>>,
) {
    loop {
        watched.mark_unchanged();
        let run = run.clone();
        let status = core.ask(|answer| Command::Status(run, answer)).await;
        let (response, is_over) = match status.and_then(|status| status) {
            Ok(status) => {
                let is_over = status.state.is_final();
                let status = Some((&status).into());
                (Ok(v1::WatchJobResponse { status }), is_over)
            }
            Err(error) => (Err(to_status(&error)), true),
        };
        if responses.send(response).await.is_err() || is_over {
            return;
        }
        tokio::time::sleep(WATCH_EVERY).await;
        // A job that is no longer watched by the core is asked for once more, and then over or unknown.
        let _ = watched.changed().await;
    }
}

fn check_run(run: &str) -> Result<(), TaskError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    match (1..=64).contains(&run.len()) && run.chars().all(is_good) {
        true => Ok(()),
        false => Err(TaskError {
            kind: ErrorKind::Usage,
            message: "a run id is 1 to 64 letters, digits, `-` and `_`".into(),
            causes: Vec::new(),
            hint: None,
        }),
    }
}

/// What can be refused before anything is read.
fn check(job: &FitJob) -> Result<(), TaskError> {
    let refused = |kind, message: String| TaskError {
        kind,
        message,
        causes: Vec::new(),
        hint: None,
    };
    job.spec.check().map_err(|error| {
        let kind = match &error {
            clientele_protocol::SpecError::Usage(_) => ErrorKind::Usage,
            clientele_protocol::SpecError::Limit(_) => ErrorKind::Limit,
        };
        refused(kind, error.to_string())
    })?;
    if job.tables.is_empty() {
        return Err(refused(ErrorKind::Usage, "no table is named".into()));
    }
    if job.story.len() > MAX_STORY_BYTES {
        let n_bytes = job.story.len();
        return Err(refused(
            ErrorKind::Limit,
            format!("the story has {n_bytes} bytes, above the limit of {MAX_STORY_BYTES}"),
        ));
    }
    Ok(())
}

fn bug(message: &str) -> TaskError {
    TaskError {
        kind: ErrorKind::Bug,
        message: message.to_owned(),
        causes: Vec::new(),
        hint: None,
    }
}

fn invalid(message: &str) -> Status {
    Status::invalid_argument(message)
}
