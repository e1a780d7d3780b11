//! Real coordinators and callers, over TCP on loopback: who gets in, and what the others are told.

mod certificates;
mod flags;
mod limits;
mod tokens;

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::ExtendedKeyUsagePurpose;
use tempfile::TempDir;
use tokio::sync::{Semaphore, oneshot};
use tonic::codegen::tokio_stream;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::client::Files;
use super::development_ca::{Leaf, alternative_names, make_authority};
use super::{
    AuthorizeLayer, CertificateFiles, ClientSecurity, Refusals, ServerSecurity, init_certificates,
};
use crate::connection::{self, MAX_MESSAGE_BYTES};
use crate::v1;
use crate::v1::jobs_service_client::JobsServiceClient;
use crate::v1::jobs_service_server::{JobsService, JobsServiceServer};
use crate::v1::work_service_client::WorkServiceClient;

const CLIENT_TOKEN: &str = "client-0123456789abcdef";
const WORKER_TOKEN: &str = "worker-0123456789abcdef";

/// A coordinator that runs until it is dropped.
struct Coordinator {
    url: String,
    layer: AuthorizeLayer,
    /// Permits for `GetJob`, which waits for them.
    gate: Arc<Semaphore>,
    _stop: oneshot::Sender<()>,
}

async fn start(security: &ServerSecurity) -> Coordinator {
    start_at("127.0.0.1:0", security).await
}

async fn start_at(listen: &str, security: &ServerSecurity) -> Coordinator {
    let incoming = connection::listen(address(listen)).expect("bound");
    let address = incoming.local_addr().expect("bound");
    let scheme = if security.is_encrypted() {
        "https"
    } else {
        "http"
    };
    let gate = Arc::new(Semaphore::new(0));
    let jobs = JobsServiceServer::new(Jobs(Arc::clone(&gate)));
    let (_, health) = tonic_health::server::health_reporter();
    let (stop, stopped) = oneshot::channel();
    let serving = security
        .server()
        .add_service(jobs.max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(health)
        .serve_with_incoming_shutdown(incoming, async {
            // Dropped is enough.
            let _ = stopped.await;
        });
    tokio::spawn(serving);
    Coordinator {
        url: format!("{scheme}://{address}"),
        layer: security.layer().clone(),
        gate,
        _stop: stop,
    }
}

impl Coordinator {
    fn caller(&self, files: &Files) -> Caller {
        Caller::new(&self.url, files)
    }

    fn with_token(&self, line: &str) -> Caller {
        let (_folder, path) = file_with(line);
        self.caller(&Files {
            token_file: Some(path),
            ..Files::default()
        })
    }

    fn refusals(&self) -> Refusals {
        self.layer.refusals()
    }

    /// A method that the service does not have; behind the gate, it would be `Unimplemented`.
    async fn planted_method(&self) -> String {
        let channel = self.caller(&Files::default()).connect().await;
        let mut grpc = tonic::client::Grpc::new(channel.expect("connected"));
        grpc.ready().await.expect("ready");
        let path = http::uri::PathAndQuery::from_static("/clientele.v1.JobsService/ReadCustomers");
        let codec = tonic_prost::ProstCodec::<v1::ListJobsRequest, v1::ListJobsResponse>::default();
        outcome(
            grpc.unary(Request::new(v1::ListJobsRequest {}), path, codec)
                .await,
        )
    }
}

/// Somebody at the other end.
struct Caller(ClientSecurity);

impl Caller {
    fn new(url: &str, files: &Files) -> Self {
        Self(ClientSecurity::with_files(url, files, false).expect("files that fit"))
    }

    async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        self.0.endpoint().connect().await
    }

    async fn list_jobs(&self) -> String {
        let channel = match self.connect().await {
            Ok(channel) => channel,
            Err(error) => return with_causes(&error),
        };
        let mut jobs = JobsServiceClient::with_interceptor(channel, self.0.interceptor());
        outcome(
            jobs.list_jobs(connection::call(v1::ListJobsRequest {}))
                .await,
        )
    }

    async fn submit(&self) -> String {
        self.submit_bytes(0).await
    }

    /// A job whose story has `n_bytes`.
    async fn submit_bytes(&self, n_bytes: usize) -> String {
        let channel = self.connect().await.expect("connected");
        let mut jobs = JobsServiceClient::with_interceptor(channel, self.0.interceptor());
        let job = v1::FitJob {
            story: vec![7; n_bytes],
            ..Default::default()
        };
        let request = v1::SubmitRequest {
            run: String::new(),
            fit: Some(job),
        };
        outcome(jobs.submit(connection::call(request)).await)
    }

    async fn attend(&self) -> String {
        let channel = self.connect().await.expect("connected");
        let mut work = WorkServiceClient::with_interceptor(channel, self.0.interceptor());
        outcome(work.attend(tokio_stream::empty()).await)
    }

    async fn health(&self) -> String {
        let channel = self.connect().await.expect("connected");
        let mut health = HealthClient::with_interceptor(channel, self.0.interceptor());
        outcome(health.check(HealthCheckRequest::default()).await)
    }
}

/// `ok`, or what a person would read.
fn outcome<T>(answer: Result<Response<T>, Status>) -> String {
    match answer {
        Ok(_) => "ok".into(),
        // Said by the coordinator.
        Err(status) if std::error::Error::source(&status).is_none() => {
            format!("{:?}: {}", status.code(), status.message())
        }
        Err(status) => with_causes(&status),
    }
}

/// As the command line prints it.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("error: {error}");
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, "\n  caused by: {cause}");
        next = cause.source();
    }
    if let Some(hint) = connection::hint(error) {
        let _ = write!(text, "\n  hint: {hint}");
    }
    text
}

#[track_caller]
fn assert_told(told: &str, hint: &str) {
    assert!(told.ends_with(&format!("\n  hint: {hint}")), "{told}");
}

fn refusals(n_unauthenticated: u64, n_denied: u64) -> Refusals {
    Refusals {
        n_unauthenticated,
        n_denied,
    }
}

fn loopback() -> SocketAddr {
    address("127.0.0.1:0")
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn plain_server(token_file: Option<PathBuf>) -> ServerSecurity {
    ServerSecurity::new(loopback(), None, None, None, token_file).expect("fine on loopback")
}

fn token_file() -> (TempDir, PathBuf) {
    file_with(&format!(
        "# for tests\nclient {CLIENT_TOKEN}\nworker {WORKER_TOKEN}\n"
    ))
}

/// A file that only its owner can read, as long as its folder is kept.
fn file_with(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    fs::write(&path, text).expect("written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    }
    (folder, path)
}

/// What `clientele certs init` makes, in a folder of its own.
struct Certs {
    folder: TempDir,
    files: CertificateFiles,
}

impl Certs {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let files = init_certificates(folder.path(), &[]).expect("made");
        Self { folder, files }
    }

    /// With another client certificate: one with these URIs, made at `made`.
    fn minted(uris: &[&str], made: SystemTime) -> Self {
        let certs = Self::new();
        let now = SystemTime::now();
        let authority = make_authority(now).expect("made");
        let server = Leaf::new("server").hosts(alternative_names(&[]).expect("local ones"));
        let server = server.make(&authority, now, ExtendedKeyUsagePurpose::ServerAuth);
        let client = uris.iter().fold(Leaf::new("client"), |leaf, uri| {
            leaf.uri(uri).expect("a URI")
        });
        let client = client.make(&authority, made, ExtendedKeyUsagePurpose::ClientAuth);
        let files = &certs.files;
        fs::write(&files.ca, authority.pem()).expect("written");
        for (cert, key, made) in [
            (&files.server, &files.server_key, server),
            (&files.client, &files.client_key, client),
        ] {
            let (cert_pem, key_pem) = made.expect("made");
            fs::write(cert, cert_pem).expect("written");
            fs::write(key, key_pem).expect("written");
        }
        certs
    }

    fn server(&self, token_file: Option<PathBuf>) -> ServerSecurity {
        ServerSecurity::new(
            loopback(),
            Some(self.files.server.clone()),
            Some(self.files.server_key.clone()),
            Some(self.files.ca.clone()),
            token_file,
        )
        .expect("files that fit")
    }

    /// The files of a caller of this role.
    fn of(&self, role: &str) -> Files {
        let file = |name: String| Some(self.folder.path().join(name));
        Files {
            tls_ca: Some(self.files.ca.clone()),
            tls_cert: file(format!("{role}.pem")),
            tls_key: file(format!("{role}-key.pem")),
            token_file: None,
        }
    }

    fn caller(&self, coordinator: &Coordinator, role: &str) -> Caller {
        coordinator.caller(&self.of(role))
    }
}

/// Answers with nothing: `GetJob` when there is a permit. `CancelJob` fails with the name of the run.
struct Jobs(Arc<Semaphore>);

#[tonic::async_trait]
impl JobsService for Jobs {
    type WatchJobStream = tokio_stream::Empty<Result<v1::WatchJobResponse, Status>>;

    async fn submit(
        &self,
        _: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_job(
        &self,
        _: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        let permit = self.0.acquire().await;
        permit
            .map_err(|_| Status::new(Code::Aborted, "closed"))?
            .forget();
        Ok(Response::new(Default::default()))
    }

    async fn list_jobs(
        &self,
        _: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn watch_job(
        &self,
        _: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        Err(Status::aborted(request.into_inner().run))
    }
}
