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
use network::{Held, Network};
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

    /// A coordinator and two workers that reach S3 at `url`. The kernel changes what is said of the computation, and no result.
    fn cluster(&self, url: &str, kernel: Option<&str>) -> Cluster {
        let mut cluster = Cluster::start_with(self.dir(), "127.0.0.1:0", |command| {
            use_lake(command, url);
            command.args(["--state", "lake:_clientele"]);
        });
        for name in ["w0", "w1"] {
            cluster.add_worker(name, |command| {
                use_lake(command, url);
                command.args(["--backend", "cpu"]);
                if let Some(kernel) = kernel {
                    command.env("CLIENTELE_KERNEL", kernel);
                }
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
    let cluster = expected.cluster(&server.url, None);
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
    let cluster = expected.cluster(&network.url, None);
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

/// A request: its method, and the end of its path below the run.
type Moment = (&'static str, &'static str);

/// A coordinator that is frozen while it waits for the answer to a request of `run`, and that request.
fn frozen(expected: &Expected, network: &Network, run: &str, at: Moment) -> (Cluster, Held) {
    let cluster = expected.cluster(&network.url, None);
    let held = network.hold(at.0, format!("{run}/{}", at.1));
    cluster.submit(run, TABLE, &format!("lake:runs/{run}"), &MODEL);
    held.wait();
    cluster.coordinator.signal("STOP");
    (cluster, held)
}

/// Wakes a coordinator and waits until it has nothing more to do with the run.
fn wake(cluster: &Cluster, run: &str) {
    cluster.coordinator.signal("CONT");
    wait_for("the last word of a coordinator that was frozen", || {
        let log = cluster.coordinator.log();
        let stands_down = log.contains("another coordinator leads this run now");
        (stands_down || cluster.job(run)["state"] == "done").then_some(())
    });
}

/// Another coordinator ends the run of a frozen one; then the request of that one arrives after all, and it wakes.
fn check_takeover(expected: &Expected, server: &Server, run: &str, at: Moment) {
    let networks = [(); 2].map(|()| Network::calm(&server.url));
    let (first, held) = frozen(expected, &networks[0], run, at);
    let second = expected.cluster(&networks[1].url, Some("scalar"));
    assert_eq!(hashes(&second.watch(run)), expected.hashes, "{run}");
    let path = format!("{run}/{}", at.1);
    assert_eq!(networks[0].statuses(at.0, &path), [0; 0], "it was held");
    drop(held);
    wait_for("the request that was held", || {
        networks[0].statuses(at.0, &path).pop()
    });
    wake(&first, run);
    expected.check(server, run);
    let commits: Vec<u16> = networks
        .iter()
        .flat_map(|network| network.statuses("PUT", &format!("{run}/{COMMITTED}")))
        .collect();
    let n_created = commits.iter().filter(|status| **status == 200).count();
    assert_eq!(n_created, 1, "{run} was published with {commits:?}");
}

#[test]
fn a_coordinator_that_wakes_after_another_has_ended_its_run_changes_nothing() {
    let Some(server) = Server::moto() else {
        return;
    };
    let _alone = alone();
    let expected = Expected::new();
    expected.upload(&server);
    for (run, at) in [
        ("first-checkpoint", ("PUT", "_work/log/000000")),
        ("in-a-pass", ("PUT", "_work/log/000006")),
        ("before-the-model", ("PUT", "model.json")),
        ("before-the-commit", ("PUT", "_COMMITTED")),
    ] {
        check_takeover(&expected, &server, run, at);
    }
}

#[test]
fn a_coordinator_that_wakes_while_it_opens_a_run_that_another_has_ended_changes_nothing() {
    let Some(server) = Server::moto() else {
        return;
    };
    let _alone = alone();
    let expected = Expected::new();
    expected.upload(&server);
    for (run, at) in [
        ("marking", ("PUT", "_UNFINISHED")),
        ("pinning", ("PUT", "_work/manifest.json")),
        ("choosing-a-nonce", ("PUT", "_work/nonce")),
        ("naming", ("PUT", "_work/run")),
        ("claiming", ("PUT", "_work/epochs/000001")),
    ] {
        check_takeover(&expected, &server, run, at);
    }
}

#[test]
fn of_two_checkpoints_of_one_stage_the_first_to_arrive_counts() {
    const CHECKPOINT: &str = "_work/log/000006";
    let Some(server) = Server::moto() else {
        return;
    };
    let _alone = alone();
    let expected = Expected::new();
    expected.upload(&server);
    let run = "race";
    let path = format!("{run}/{CHECKPOINT}");
    let networks = [(); 2].map(|()| Network::calm(&server.url));
    let (first, held) = frozen(&expected, &networks[0], run, ("PUT", CHECKPOINT));
    let held_too = networks[1].hold("PUT", path.clone());
    // Of other kernels, so that the two have not the same bytes.
    let second = expected.cluster(&networks[1].url, Some("scalar"));
    held_too.wait();
    drop(held);
    let of_first = wait_for("the first", || networks[0].statuses("PUT", &path).pop());
    drop(held_too);
    assert_eq!(hashes(&second.watch(run)), expected.hashes);
    let of_second = networks[1].statuses("PUT", &path);
    assert_eq!((of_first, of_second), (200, vec![412]));
    wake(&first, run);
    expected.check(&server, run);
}
