//! Promises of a cluster whose input, output and checkpoints are in S3: the same bytes as one process with files on a disk, through a
//! store that refuses and forgets, and however many coordinators believe to lead.

mod common;
#[path = "common/network.rs"]
mod network;
#[path = "common/s3.rs"]
mod s3;

use std::path::Path;

use clientele_data::run_dir::{self, COMMITTED};
use common::cluster::{Cluster, alone, wait_for};
use common::{clientele, fit, hashes, labels, summary};
use network::Network;
use s3::{Server, download, use_lake};
use serde_json::Value;
use tempfile::TempDir;

const MODEL: [&str; 12] = [
    "--id",
    "customer_id",
    "--k",
    "2..4",
    "--restarts",
    "2",
    "--tol",
    "0",
    "--max-iter",
    "15",
    "--seed",
    "5",
];
const TABLE: &str = "lake:customers/*.parquet";

/// Files of a table, and what they come to in one process on a disk.
struct Expected {
    dir: TempDir,
    hashes: (String, String),
}

impl Expected {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let table = dir.path().join("customers");
        std::fs::create_dir(&table).unwrap();
        let batch = common::blobs(240_000, 4, 12);
        for nth in 0..3 {
            let part = batch.slice(nth * 80_000, 80_000);
            common::write(&table.join(format!("{nth}.parquet")), &part, 20_000);
        }
        let hashes = hashes(&summary(fit(&table, &dir.path().join("run")).args(MODEL)));
        Self { dir, hashes }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn upload(&self, server: &Server) {
        let lake = server.lake();
        for name in ["0.parquet", "1.parquet", "2.parquet"] {
            let bytes = std::fs::read(self.dir().join("customers").join(name)).unwrap();
            lake.write(&format!("customers/{name}"), &bytes).unwrap();
        }
    }

    /// A coordinator and two workers that reach S3 at `url`.
    fn cluster(&self, url: &str) -> Cluster {
        let mut cluster = Cluster::start_with(self.dir(), "127.0.0.1:0", |command| {
            use_lake(command, url);
            command.args(["--state", "lake:_clientele"]);
        });
        for name in ["w0", "w1"] {
            cluster.add_worker(name, |command| {
                use_lake(command, url);
                command.args(["--backend", "cpu"]);
            });
        }
        cluster.wait_for_workers(2);
        cluster
    }

    /// Whether the store holds the whole run `run`, done, and with the same bytes in every row.
    fn check(&self, server: &Server, run: &str) {
        let lake = server.lake();
        let out = lake.child(&format!("runs/{run}")).unwrap();
        run_dir::verify(out.clone()).unwrap();
        let copy = self.dir().join(format!("copy-of-{run}"));
        download(&out, &copy);
        assert_eq!(hashes(&common::json(&copy, "model.json")), self.hashes);
        assert_eq!(labels(&copy), labels(&self.dir().join("run")));
        let ended = lake.read(&format!("_clientele/ended/{run}.json")).unwrap();
        let ended: Value = serde_json::from_slice(&ended.expect("its end is remembered")).unwrap();
        assert_eq!(ended["state"], "done", "{ended}");
    }
}

#[test]
fn a_cluster_on_s3_gives_the_bytes_of_one_process_on_a_disk() {
    let Some(server) = Server::s3s_fs() else {
        return;
    };
    let _alone = alone();
    let expected = Expected::new();
    expected.upload(&server);
    let cluster = expected.cluster(&server.url);
    let mut command = clientele();
    command
        .args(["fit", TABLE, "--out", "lake:runs/calm", "--run-id", "calm"])
        .args(["--coordinator", &cluster.url])
        .args(MODEL);
    let found = summary(&mut command);
    assert_eq!(hashes(&found), expected.hashes);
    assert_eq!(found["run"], "lake:runs/calm");
    expected.check(&server, "calm");
    let left = server.lake().child("runs/calm").unwrap().list().unwrap();
    let is_over = |name: &String| !name.starts_with('_') || name == COMMITTED;
    assert!(left.iter().all(is_over), "{left:?}");
}

/// A run through a network that spoils three requests in ten.
fn check_faulty(server: &Server, run: &str) {
    let _alone = alone();
    let expected = Expected::new();
    expected.upload(server);
    let network = Network::faulty(&server.url, 0.3);
    let cluster = expected.cluster(&network.url);
    let out = format!("lake:runs/{run}");
    cluster.submit(run, TABLE, &out, &MODEL);
    assert_eq!(hashes(&cluster.watch(run)), expected.hashes);
    expected.check(server, run);
    let (n_requests, n_faults) = (network.n_requests(), network.n_faults());
    let n_lost = network.n_lost_answers();
    println!(
        "{run}: {n_requests} requests, {n_faults} spoiled, of those {n_lost} after they were served"
    );
    assert!(n_faults * 5 > n_requests, "too few faults have fired");
    assert!(n_lost >= 5, "too few answers were lost");
}

#[test]
fn a_store_of_files_that_refuses_three_requests_in_ten_changes_nothing() {
    if let Some(server) = Server::s3s_fs() {
        check_faulty(&server, "faulty-files");
    }
}

#[test]
fn a_store_with_true_creation_that_refuses_three_requests_in_ten_changes_nothing() {
    if let Some(server) = Server::moto() {
        check_faulty(&server, "faulty-creation");
    }
}

/// A coordinator is frozen while a request of its is on the way; another one goes on with the run and ends it; then the request
/// arrives, and the first coordinator wakes.
fn check_takeover(
    server: &Server,
    expected: &Expected,
    run: &str,
    method: &'static str,
    path_end: &'static str,
) {
    let (network_a, network_b) = (Network::calm(&server.url), Network::calm(&server.url));
    let first = expected.cluster(&network_a.url);
    let held = network_a.hold(method, path_end);
    first.submit(run, TABLE, &format!("lake:runs/{run}"), &MODEL);
    held.wait();
    first.coordinator.signal("STOP");
    let second = expected.cluster(&network_b.url);
    let found = second.watch(run);
    assert_eq!(hashes(&found), expected.hashes, "{run}");
    let n_passed = network_a.passed().len();
    drop(held);
    wait_for("the request that was held", || {
        (network_a.passed().len() > n_passed).then_some(())
    });
    first.coordinator.signal("CONT");
    wait_for("the first coordinator to stand down", || {
        let job = first.job(run);
        let is_over = job["state"] == "done"
            || first
                .coordinator
                .log()
                .contains("another coordinator leads this run now");
        is_over.then_some(())
    });
    expected.check(server, run);
    let passed = [network_a.passed(), network_b.passed()].concat();
    let commits = passed.iter().filter(|passed| {
        passed.method == "PUT"
            && passed.path.ends_with(&format!("{run}/{COMMITTED}"))
            && passed.status == 200
    });
    assert_eq!(commits.count(), 1, "{run} was published once");
    println!("{run}: {}", first.coordinator.log());
}

#[test]
fn a_coordinator_that_wakes_after_another_has_taken_over_stands_down() {
    let Some(server) = Server::moto() else {
        return;
    };
    let _alone = alone();
    let expected = Expected::new();
    expected.upload(&server);
    for (run, method, path_end) in [
        (
            "frozen-in-a-pass",
            "PUT",
            "frozen-in-a-pass/_work/log/000006",
        ),
        (
            "frozen-before-the-model",
            "PUT",
            "frozen-before-the-model/model.json",
        ),
        (
            "frozen-before-the-commit",
            "PUT",
            "frozen-before-the-commit/_COMMITTED",
        ),
    ] {
        check_takeover(&server, &expected, run, method, path_end);
    }
}
