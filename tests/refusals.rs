//! What a coordinator refuses, in the words that whoever asked reads.

mod common;

use std::path::Path;
use std::process::Command;

use clientele_proto::connection::call;
use clientele_proto::v1::jobs_service_client::JobsServiceClient;
use clientele_proto::v1::work_service_client::WorkServiceClient;
use clientele_proto::{encode_worker_message, frames, v1};
use clientele_protocol::cluster::{Registration, WorkerMessage};
use common::cluster::Cluster;
use common::{Ran, clientele, run};
use tempfile::TempDir;
use tonic::{Code, Status};

const CLIENT_TOKEN: &str = "a-client-token-of-32-characters-x";
const WORKER_TOKEN: &str = "a-worker-token-of-32-characters-x";

/// Runs a command of a client against `url`.
fn ask(url: &str, arguments: &[&str]) -> Ran {
    run(clientele().args(arguments).args(["--coordinator", url]))
}

/// Whether a command ended with `code` and said all of `words`.
fn check(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{}", ran.stderr);
    for word in words {
        assert!(
            ran.stderr.contains(word),
            "`{word}` is not in: {}",
            ran.stderr
        );
    }
    assert!(
        ran.stderr.starts_with("error: ") || ran.stderr.contains("\nerror: "),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_public_address_without_tls_or_tokens() {
    let ran = run(clientele().args(["coordinator", "--listen", "0.0.0.0:0"]));
    let lines = [
        "--tls-cert",
        "--tls-key",
        "--tls-ca",
        "clientele certs init",
    ];
    check(&ran, 2, &lines);
}

#[test]
fn no_token_a_wrong_one_and_one_of_another_role() {
    let dir = TempDir::new().unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let tokens = file(
        "tokens",
        format!("client {CLIENT_TOKEN}\nworker {WORKER_TOKEN}\n"),
    );
    let cluster = Cluster::start_with(dir.path(), "127.0.0.1:0", |command| {
        command.args(["--token-file", &tokens]);
    });
    let with = |name: &str, token: &str| {
        let path = file(name, format!("{token}\n"));
        ask(&cluster.url, &["jobs", "--token-file", &path])
    };
    check(&ask(&cluster.url, &["jobs"]), 8, &["token"]);
    check(
        &with("wrong", "quite-another-token-of-32-letters"),
        8,
        &["token"],
    );
    check(&with("worker", WORKER_TOKEN), 8, &["worker"]);
    let right = with("right", CLIENT_TOKEN);
    assert_eq!(
        (right.code, &*right.stdout),
        (Some(0), "no runs\n"),
        "{}",
        right.stderr
    );
    // A worker that may not work ends, rather than dialling for ever.
    let client = dir.path().join("right").display().to_string();
    let worker = ["worker", "--backend", "cpu", "--token-file", &client];
    check(
        &ask(&cluster.url, &worker),
        8,
        &["role is client", "`clientele:worker`"],
    );
    assert!(cluster.metric("clientele_unauthenticated_calls_total") >= 2);
    assert!(cluster.metric("clientele_denied_calls_total") >= 1);
    let log = cluster.coordinator.log();
    assert!(
        !log.contains(CLIENT_TOKEN) && !log.contains(WORKER_TOKEN),
        "{log}"
    );
}

fn certificates(dir: &Path) {
    let made = run(clientele().args(["certs", "init", "--out"]).arg(dir));
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let again = run(clientele().args(["certs", "init", "--out"]).arg(dir));
    check(&again, 6, &["exists"]);
}

fn tls(command: &mut Command, folder: &Path, who: &str) {
    command
        .arg("--tls-ca")
        .arg(folder.join("ca.pem"))
        .arg("--tls-cert")
        .arg(folder.join(format!("{who}.pem")))
        .arg("--tls-key")
        .arg(folder.join(format!("{who}-key.pem")));
}

#[test]
fn no_certificate_one_of_a_foreign_authority_and_one_of_another_role() {
    let dir = TempDir::new().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    certificates(&ours);
    certificates(&theirs);
    let cluster = Cluster::start_with(dir.path(), "127.0.0.1:0", |command| {
        tls(command, &ours, "server");
    });
    let url = cluster.url.replace("127.0.0.1", "localhost");
    assert!(url.starts_with("https://"), "{url}");
    let jobs = |prepare: &dyn Fn(&mut Command)| {
        let mut command = clientele();
        command.args(["jobs", "--coordinator", &url]);
        prepare(&mut command);
        run(&mut command)
    };
    let right = jobs(&|command| tls(command, &ours, "client"));
    assert_eq!(right.code, Some(0), "{}", right.stderr);
    let ca_only = jobs(&|command| {
        command.arg("--tls-ca").arg(ours.join("ca.pem"));
    });
    check(&ca_only, 5, &["--tls-cert"]);
    let foreign = jobs(&|command| tls(command, &theirs, "client"));
    check(&foreign, 5, &["--tls-ca"]);
    let stranger = jobs(&|command| {
        tls(command, &theirs, "client");
        // It knows whom it dials, and is not known there.
        let ca = std::fs::read(ours.join("ca.pem")).unwrap();
        std::fs::write(theirs.join("ca.pem"), ca).unwrap();
    });
    check(&stranger, 5, &["authority", "--tls-cert"]);
    let worker = jobs(&|command| tls(command, &ours, "worker"));
    check(&worker, 8, &["worker"]);
    let plain = ask(&url.replace("https://", "http://"), &["jobs"]);
    assert_eq!(plain.code, Some(5), "{}", plain.stderr);
}

/// One question over the wire, as another program would ask it.
fn raw<T>(url: &str, question: impl AsyncFnOnce(tonic::transport::Channel) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(url.to_owned()).unwrap();
        question(endpoint.connect().await.unwrap()).await
    })
}

fn submit(url: &str, change: impl FnOnce(&mut v1::FitJob)) -> Status {
    let location = |key: &str| v1::Location {
        store: "local".into(),
        key: key.into(),
    };
    let mut fit = v1::FitJob {
        tables: vec![location("customers.parquet")],
        out: Some(location("out")),
        nulls: "impute".into(),
        transform: "auto".into(),
        k_min: 2,
        k_max: 3,
        n_restarts: 1,
        max_iter: 10,
        tol: 1e-4,
        story: b"{}".to_vec(),
        ..v1::FitJob::default()
    };
    change(&mut fit);
    let request = v1::SubmitRequest {
        run: "refused".into(),
        fit: Some(fit),
    };
    raw(url, async |channel| {
        JobsServiceClient::new(channel)
            .submit(call(request))
            .await
            .expect_err("it is refused")
    })
}

#[test]
fn keys_that_lead_out_of_a_store() {
    let dir = TempDir::new().unwrap();
    let cluster = Cluster::start(dir.path());
    for key in [
        "../secrets",
        "a/../../b",
        "/etc/passwd",
        "a\\..\\b",
        "s3://bucket/key",
    ] {
        for in_out in [false, true] {
            let refused = submit(&cluster.url, |fit| {
                let location = if in_out {
                    fit.out.as_mut().unwrap()
                } else {
                    &mut fit.tables[0]
                };
                location.key = key.into();
            });
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
            assert!(
                refused
                    .message()
                    .contains("an alias of a store and a relative key"),
                "{refused:?}"
            );
        }
    }
    let unknown = run(clientele()
        .args(["fit", "lake:x.parquet", "--out", "lake:out", "--k", "2"])
        .args(["--coordinator", &cluster.url])
        .current_dir(dir.path()));
    check(&unknown, 2, &["lake", "--store"]);
}

#[test]
fn a_message_of_100_mib() {
    let dir = TempDir::new().unwrap();
    let cluster = Cluster::start(dir.path());
    let refused = submit(&cluster.url, |fit| fit.story = vec![b' '; 100 << 20]);
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    assert!(refused.message().contains("4194304"), "{refused:?}");
    // It has done no harm.
    assert_eq!(ask(&cluster.url, &["jobs"]).stdout, "no runs\n");
}

/// What a worker with these versions is told.
fn register(url: &str, protocol_version: u32, algorithm_version: &str) -> Result<(), Status> {
    let registration = WorkerMessage::Registration(Registration {
        protocol_version,
        algorithm_version: algorithm_version.into(),
        name: "of another time".into(),
        devices: vec!["cpu".into()],
        memory_bytes: 1 << 30,
        n_threads: 1,
        stores: vec!["local".into()],
    });
    let requests = frames(encode_worker_message(&registration))
        .map(|frame| v1::AttendRequest { frame: Some(frame) });
    let requests: Vec<v1::AttendRequest> = requests.collect();
    raw(url, async |channel| {
        let requests = tokio_stream::iter(requests);
        let mut answers = WorkServiceClient::new(channel)
            .attend(requests)
            .await?
            .into_inner();
        answers.message().await.map(|_| ())
    })
}

#[test]
fn a_worker_of_another_version() {
    let dir = TempDir::new().unwrap();
    let cluster = Cluster::start(dir.path());
    let ours = clientele_protocol::PROTOCOL_VERSION;
    let algorithm = clientele_kmeans::ALGORITHM_VERSION;
    register(&cluster.url, ours, algorithm).expect("the same version is welcome");
    let skewed = register(&cluster.url, ours + 1, algorithm).unwrap_err();
    let words = format!("protocol version {}, the coordinator {ours}", ours + 1);
    assert!(skewed.message().contains(&words), "{skewed:?}");
    let skewed = register(&cluster.url, ours, "grid-kmeans-0").unwrap_err();
    let words = format!("algorithm version grid-kmeans-0, the coordinator {algorithm}");
    assert!(skewed.message().contains(&words), "{skewed:?}");
}

/// Runs of a coordinator, oldest first.
fn listed(cluster: &Cluster) -> Vec<String> {
    let jobs = ask(&cluster.url, &["jobs"]).stdout;
    let names = jobs
        .lines()
        .skip(1)
        .filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn a_job_above_the_limit_is_refused_for_good() {
    let dir = TempDir::new().unwrap();
    common::parquet(
        dir.path(),
        "customers.parquet",
        &common::blobs(10_000, 2, 3),
    );
    let submit = |cluster: &Cluster, run_id: &str| {
        let arguments = [
            "submit",
            "customers.parquet",
            "--out",
            run_id,
            "--run-id",
            run_id,
        ];
        let mut command = clientele();
        command
            .args(arguments)
            .args(["--coordinator", &cluster.url])
            .current_dir(dir.path());
        run(&mut command)
    };
    let mut cluster = Cluster::start_with(dir.path(), "127.0.0.1:0", |command| {
        command.args(["--max-running", "1", "--max-queued", "0"]);
    });
    // The first one runs, or would if there were a worker; none may wait.
    assert_eq!(submit(&cluster, "first").code, Some(0));
    check(&submit(&cluster, "a"), 7, &["0 jobs are waiting"]);
    cluster.coordinator.signal("TERM");
    cluster.coordinator.end();
    cluster.restart();
    assert_eq!(listed(&cluster), ["first"]);
    // Two runs into one folder: the second is refused, and not taken up by the next coordinator.
    assert_eq!(submit(&cluster, "b").code, Some(0));
    let arguments = ["submit", "customers.parquet", "--out", "b", "--run-id", "c"];
    let same_out = run(clientele()
        .args(arguments)
        .args(["--coordinator", &cluster.url])
        .current_dir(dir.path()));
    check(&same_out, 6, &["run `b` is being written"]);
    cluster.coordinator.signal("TERM");
    cluster.coordinator.end();
    cluster.restart();
    assert_eq!(listed(&cluster), ["first", "b"]);
}

#[test]
fn a_run_directory_that_a_worker_does_not_see() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    common::parquet(
        here.path(),
        "customers.parquet",
        &common::blobs(10_000, 2, 3),
    );
    let mut cluster = Cluster::start(here.path());
    let elsewhere = there.path().to_owned();
    cluster.add_worker("elsewhere", |command| {
        command.args(["--backend", "cpu"]).current_dir(&elsewhere);
    });
    cluster.wait_for_workers(1);
    let ran = run(clientele()
        .args([
            "fit",
            "customers.parquet",
            "--out",
            "out",
            "--id",
            "customer_id",
        ])
        .args(["--k", "2", "--coordinator", &cluster.url])
        .current_dir(here.path()));
    check(&ran, 2, &["worker `elsewhere`", "local:out", "--store"]);
    // One that sees it does the work alone.
    cluster.add_worker("here", |command| {
        command.args(["--backend", "cpu"]);
    });
    cluster.wait_for_workers(2);
    let ran = run(clientele()
        .args([
            "fit",
            "customers.parquet",
            "--out",
            "out2",
            "--id",
            "customer_id",
        ])
        .args(["--k", "2", "--coordinator", &cluster.url])
        .current_dir(here.path()));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}
