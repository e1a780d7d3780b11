//! What clients ask of a coordinator: `fit --coordinator`, `submit`, `status`, `watch`, `cancel`, `jobs`.

use std::path::Path;
use std::time::{Duration, Instant};

use clientele_data::{ErrorKind, Location, Stores};
use clientele_features::FitSettings;
use clientele_proto::connection::{MAX_MESSAGE_BYTES, call, hint};
use clientele_proto::security::{ClientSecurity, TokenInterceptor};
use clientele_proto::status::to_error;
use clientele_proto::v1;
use clientele_proto::v1::jobs_service_client::JobsServiceClient;
use clientele_protocol::TaskError;
use clientele_protocol::jobs::{FitJob, JobState, JobStatus, WorkerStatus};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{credentials, runtime};
use crate::args::{
    ClientArgs, FitArgs, Format, JobsArgs, ModelArgs, RunIdArgs, StatusArgs, SubmitArgs,
    SubmitFitArgs, TableArgs, WatchArgs,
};
use crate::evidence::Story;
use crate::failure::Failure;
use crate::job::{self, read_init};
use crate::progress::Display;
use crate::summary::{Summary, print_json, print_lines};
use crate::{raw, table};

/// How long a coordinator that is away is waited for.
const AWAY_LIMIT: Duration = Duration::from_secs(600);

/// Between two attempts to reach it.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

type Jobs = JobsServiceClient<InterceptedService<Channel, TokenInterceptor>>;

/// A coordinator, reached again whenever it was away.
struct Client {
    security: ClientSecurity,
    /// What to look at when a coordinator with TLS hangs up: it does so without a word where it does not like a certificate.
    hung_up_hint: Option<&'static str>,
}

impl Client {
    fn new(args: &ClientArgs) -> Result<Self, Failure> {
        let (url, shown) = (&args.coordinator, &args.credentials);
        Ok(Self {
            security: credentials(url, shown)?,
            hung_up_hint: url.starts_with("https://").then_some(match &shown.tls_cert {
                Some(_) => "if it hangs up at once: does it trust the authority that signed the file of `--tls-cert`?",
                None => "if it hangs up at once, it may want to know who asks: give `--tls-cert` and `--tls-key`, or `--token-file`",
            }),
        })
    }

    fn refused(&self, status: &Status) -> TaskError {
        let mut error = to_error(status);
        let known = hint(status).map(str::to_owned);
        error.hint = error.hint.or(known);
        if error.hint.is_none() && error.kind == ErrorKind::Transient {
            error.hint = self.hung_up_hint.map(str::to_owned);
        }
        error
    }

    async fn connect(&self) -> Result<Jobs, TaskError> {
        let connected = self.security.endpoint().connect().await;
        let channel = connected.map_err(|error| TaskError {
            kind: ErrorKind::Transient,
            message: format!(
                "the coordinator at {} cannot be reached",
                self.security.endpoint().uri()
            ),
            causes: causes(&error),
            hint: hint(&error)
                .or(self.hung_up_hint)
                .or(Some("is `clientele coordinator` running there?"))
                .map(str::to_owned),
        })?;
        Ok(
            JobsServiceClient::with_interceptor(channel, self.security.interceptor())
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
    }

    /// Hands over a job. A coordinator that cannot be reached is told at once; one that goes away while it is asked is asked again,
    /// which does no harm: the run has its name.
    async fn submit(&self, run: &str, job: &FitJob) -> Result<JobStatus, TaskError> {
        let mut jobs = self.connect().await?;
        let started = Instant::now();
        loop {
            let request = v1::SubmitRequest {
                run: run.to_owned(),
                fit: Some(job.into()),
            };
            let error = match jobs.submit(call(request)).await {
                Ok(response) => return status(response.into_inner().status),
                Err(status) => self.refused(&status),
            };
            if error.kind != ErrorKind::Transient || started.elapsed() > AWAY_LIMIT {
                return Err(error);
            }
            tokio::time::sleep(AWAY_PAUSE).await;
        }
    }

    async fn status(&self, run: &str) -> Result<(JobStatus, Vec<WorkerStatus>), TaskError> {
        let request = v1::GetJobRequest {
            run: run.to_owned(),
        };
        let response = self.connect().await?.get_job(call(request)).await;
        let response = response
            .map_err(|status| self.refused(&status))?
            .into_inner();
        Ok((status(response.status)?, workers(response.workers)))
    }

    async fn list(&self) -> Result<(Vec<JobStatus>, Vec<WorkerStatus>), TaskError> {
        let request = v1::ListJobsRequest {};
        let response = self.connect().await?.list_jobs(call(request)).await;
        let response = response
            .map_err(|status| self.refused(&status))?
            .into_inner();
        let jobs = response.jobs.into_iter().map(|job| status(Some(job)));
        Ok((jobs.collect::<Result<_, _>>()?, workers(response.workers)))
    }

    async fn cancel(&self, run: &str) -> Result<JobStatus, TaskError> {
        let request = v1::CancelJobRequest {
            run: run.to_owned(),
        };
        let response = self.connect().await?.cancel_job(call(request)).await;
        status(
            response
                .map_err(|status| self.refused(&status))?
                .into_inner()
                .status,
        )
    }

    /// Follows a run to its end; a coordinator that is away for a while goes on with it when it is back.
    async fn follow(&self, run: &str) -> Result<JobStatus, TaskError> {
        let mut display = Display::new();
        let mut away_since: Option<Instant> = None;
        loop {
            let error = match self.follow_once(run, &mut display, &mut away_since).await {
                Ok(status) => return Ok(status),
                Err(error) if error.kind != ErrorKind::Transient => return Err(error),
                Err(error) => error,
            };
            let since = *away_since.get_or_insert_with(|| {
                eprintln!("the coordinator is away ({error}); the run goes on when it is back");
                Instant::now()
            });
            if since.elapsed() > AWAY_LIMIT {
                return Err(error);
            }
            tokio::time::sleep(AWAY_PAUSE).await;
        }
    }

    async fn follow_once(
        &self,
        run: &str,
        display: &mut Display,
        away_since: &mut Option<Instant>,
    ) -> Result<JobStatus, TaskError> {
        // A stream has no deadline: it lives as long as the run does.
        let request = Request::new(v1::WatchJobRequest {
            run: run.to_owned(),
        });
        let mut client = self.connect().await?;
        let mut statuses = client
            .watch_job(request)
            .await
            .map_err(|status| self.refused(&status))?
            .into_inner();
        while let Some(response) = statuses
            .message()
            .await
            .map_err(|status| self.refused(&status))?
        {
            let status = status(response.status)?;
            if away_since.take().is_some() {
                eprintln!(
                    "the coordinator is back (it has led this run {} times)",
                    status.epoch
                );
            }
            if status.state.is_final() {
                return Ok(status);
            }
            if let Some(progress) = &status.progress {
                display.show(progress);
            }
        }
        Err(self.refused(&Status::unavailable("the coordinator has ended the stream")))
    }
}

fn status(status: Option<v1::JobStatus>) -> Result<JobStatus, TaskError> {
    let status = status.ok_or_else(|| malformed("there is no status"))?;
    status
        .try_into()
        .map_err(|error: clientele_proto::WireError| malformed(&error.to_string()))
}

fn workers(workers: Vec<v1::WorkerStatus>) -> Vec<WorkerStatus> {
    workers.into_iter().map(Into::into).collect()
}

fn malformed(why: &str) -> TaskError {
    TaskError {
        kind: ErrorKind::Bug,
        message: "the coordinator's answer cannot be understood".into(),
        causes: vec![why.to_owned()],
        hint: Some("use the same version of clientele everywhere".into()),
    }
}

fn causes(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let errors = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = errors.map(ToString::to_string).collect();
    texts.dedup();
    texts
}

/// `clientele fit --coordinator URL`.
pub fn fit(client: &ClientArgs, args: &FitArgs) -> Result<(), Failure> {
    let submit = &args.cluster.submit;
    let job = fit_job(&args.table, &args.model, &args.out, submit)?;
    submit_and_follow(client, submit, &job, args.machine.format, &args.out)
}

/// `clientele submit`.
pub fn submit(args: &SubmitFitArgs) -> Result<(), Failure> {
    let job = fit_job(&args.table, &args.model, &args.out, &args.submit)?;
    let run = run_id(&args.submit)?;
    let client = Client::new(&args.client)?;
    runtime()?.block_on(client.submit(&run, &job))?;
    print_lines(&format!("{run}\n"))
}

/// Hands a job to a coordinator, follows it, and prints what it comes to. `shown_out` is the run directory as the user named it.
pub fn submit_and_follow(
    client: &ClientArgs,
    args: &SubmitArgs,
    job: &FitJob,
    format: Format,
    shown_out: &Path,
) -> Result<(), Failure> {
    let run = run_id(args)?;
    let client = Client::new(client)?;
    let ended = runtime()?.block_on(async {
        client.submit(&run, job).await?;
        eprintln!(
            "run {run} (`clientele cancel {run}` ends it; interrupting this command does not)"
        );
        client.follow(&run).await
    })?;
    conclude(ended, format, Some(shown_out))
}

/// `clientele watch`.
pub fn watch(args: &WatchArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let ended = runtime()?.block_on(client.follow(&args.run))?;
    conclude(ended, args.format, None)
}

/// Prints what a run has come to; one without a result is a failure with the exit code it would have had in one process.
fn conclude(ended: JobStatus, format: Format, shown_out: Option<&Path>) -> Result<(), Failure> {
    match ended.state {
        JobState::Done => {}
        JobState::Cancelled => {
            return Err(Failure::new(
                ErrorKind::Conflict,
                format!("run `{}` was cancelled", ended.run),
            ));
        }
        _ => {
            let unknown = || malformed("it failed and does not say why");
            return Err(ended.error.unwrap_or_else(unknown).into());
        }
    }
    let summary = ended.summary.unwrap_or_default();
    let mut summary: Summary =
        serde_json::from_str(&summary).map_err(|error| malformed(&error.to_string()))?;
    if let Some(out) = shown_out {
        summary.run = out.display().to_string();
    }
    for warning in summary.warnings() {
        eprintln!("warning: {warning}");
    }
    summary.print(format)
}

/// `clientele status`.
pub fn show_status(args: &StatusArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let runtime = runtime()?;
    let (jobs, workers) = match &args.run {
        Some(run) => {
            let (job, workers) = runtime.block_on(client.status(run))?;
            (vec![job], workers)
        }
        None => runtime.block_on(client.list())?,
    };
    match args.format {
        Format::Json => print_json(&table::status_json(&jobs, &workers)),
        Format::Text => print_lines(&table::status_text(&jobs, &workers)),
    }
}

/// `clientele jobs`.
pub fn jobs(args: &JobsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let (jobs, _) = runtime()?.block_on(client.list())?;
    match args.format {
        Format::Json => print_json(&table::status_json(&jobs, &[])),
        Format::Text => print_lines(&table::jobs_text(&jobs)),
    }
}

/// `clientele cancel`.
pub fn cancel(args: &RunIdArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let status = runtime()?.block_on(client.cancel(&args.run))?;
    print_lines(&format!("{} {}\n", status.run, table::state(status.state)))
}

/// The name that was asked for, or one that nobody else has.
fn run_id(args: &SubmitArgs) -> Result<String, Failure> {
    if let Some(run) = &args.run_id {
        return Ok(run.clone());
    }
    let mut bytes = [0_u8; 6];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::bug("the system gives no random numbers").because(&error))?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("run-{hex}"))
}

fn fit_job(
    table: &TableArgs,
    model: &ModelArgs,
    out: &Path,
    submit: &SubmitArgs,
) -> Result<FitJob, Failure> {
    let (mut spec, nulls) = job::fit_spec(model, &FitSettings::default())?;
    if let Some(file) = &table.init {
        let features = table.columns.as_ref().ok_or_else(|| {
            Failure::usage("--init on a cluster needs --columns")
                .hint("name the feature columns, in any order, with `--columns`")
        })?;
        raw::start_from(&mut spec, model, read_init(file, features)?)?;
    }
    let places = Places::new(submit)?;
    let tables = table.tables.iter().map(|text| places.locate(text));
    Ok(FitJob {
        tables: tables.collect::<Result<_, _>>()?,
        id: table.id.clone(),
        columns: table.columns.clone().unwrap_or_default(),
        value: table.value.clone(),
        nulls,
        out: places.locate(&out.display().to_string())?,
        spec,
        story: story_json(&raw::story(table))?,
        adopt_out: false,
        wait_for_workers_ms: wait_ms(submit),
    })
}

/// Milliseconds to wait for a worker; 0 leaves it to the coordinator.
pub fn wait_ms(args: &SubmitArgs) -> u64 {
    args.wait_for_workers
        .map_or(0, |seconds| seconds.saturating_mul(1_000).max(1))
}

/// A story as it travels.
pub fn story_json(story: &Story) -> Result<String, Failure> {
    serde_json::to_string(story)
        .map_err(|error| Failure::bug("a story is not JSON").because(&error))
}

/// From what the user writes to names that the cluster knows.
pub struct Places {
    stores: Stores,
}

impl Places {
    /// By the stores that this command knows of.
    pub fn new(args: &SubmitArgs) -> Result<Self, Failure> {
        let stores = Stores::parse(&args.stores.stores)?;
        Ok(Self { stores })
    }

    /// `lake:customers/*.parquet` of a store that only the cluster need know, or a path below the store `local`.
    pub fn locate(&self, text: &str) -> Result<Location, Failure> {
        match (self.stores.locate(text), text.parse::<Location>()) {
            (Ok(location), _) => Ok(location),
            (Err(_), Ok(location)) if !self.knows(location.store()) => Ok(location),
            (Err(error), _) => Err(error.into()),
        }
    }

    fn knows(&self, alias: &str) -> bool {
        self.stores.aliases().any(|known| known == alias)
    }
}
