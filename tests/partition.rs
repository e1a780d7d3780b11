//! Promises of a cluster on a bad network, with mutual TLS: late, lost and doubled packets, and a partition in mid-run, change nothing.
//!
//! `CLIENTELE_PARTITION_S` is how long the partition lasts [default: 12]. Needs root, for network namespaces; skipped without.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::cluster::{Process, alone, wait_for};
use common::{fit, hashes, summary};
use serde_json::Value;
use tempfile::TempDir;

/// Of the first namespace, the coordinator's.
const ADDRESS: &str = "10.77.0.1";
const WORKERS: [&str; 3] = ["w0", "w1", "w2"];

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Two numbers of clusters, two starts each; with `--max-iter`, what is fitted.
const MODEL: [&str; 10] = [
    "--id",
    "customer_id",
    "--k",
    "8..9",
    "--restarts",
    "2",
    "--tol",
    "0",
    "--seed",
    "5",
];

/// Namespaces, and the bad network between them.
struct Wire {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    prefix: String,
}

impl Wire {
    /// A namespace for the coordinator and for each worker, if that may be done here.
    fn start() -> Option<Self> {
        let prefix = format!("clientele-{}-", std::process::id());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/wire.py");
        let names = ["coordinator"].iter().chain(&WORKERS);
        let process = Command::new("python3")
            .arg(script)
            .args(names.map(|name| format!("{prefix}{name}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut process) = process else {
            println!("skipped: there is no python3");
            return None;
        };
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut wire = Self {
            orders: process.stdin.take(),
            process,
            answers,
            prefix,
        };
        if wire.answer().is_none() {
            println!("skipped: no network namespaces can be made here");
            return None;
        }
        Some(wire)
    }

    fn answer(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    /// Packets so far, by what became of them.
    fn order(&mut self, order: &str) -> Value {
        let orders = self.orders.as_mut().expect("it takes orders");
        writeln!(orders, "{order}").expect("it takes orders");
        self.answer().expect("it answers")
    }

    fn cut(&mut self, name: &str) {
        self.order(&format!("cut {}{name}", self.prefix));
    }

    fn heal(&mut self, name: &str) {
        self.order(&format!("heal {}{name}", self.prefix));
    }

    /// The binary, in one of the namespaces.
    fn clientele_in(&self, name: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &format!("{}{name}", self.prefix)])
            .arg(env!("CARGO_BIN_EXE_clientele"));
        command
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The namespaces go with its input.
        self.orders = None;
        let _ = self.process.wait();
    }
}

/// A coordinator and three workers, each in a namespace of its own.
struct Cluster {
    wire: Wire,
    dir: PathBuf,
    url: String,
    coordinator: Process,
    _workers: Vec<Process>,
}

impl Cluster {
    fn start(wire: Wire, dir: &Path) -> Self {
        let made = common::run(
            common::clientele()
                .args(["certs", "init", "--host", ADDRESS])
                .current_dir(dir),
        );
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        let mut command = wire.clientele_in("coordinator");
        command
            .current_dir(dir)
            .args(["coordinator", "--listen", &format!("{ADDRESS}:0")]);
        with_certificate(&mut command, "server");
        let coordinator = Process::start(&mut command);
        let url = wait_for("the coordinator", || {
            let log = coordinator.log();
            assert!(!log.contains("error: "), "{log}");
            let line = log.lines().find_map(|line| line.split_once(" on https"));
            line.map(|(_, rest)| format!("https{}", rest.trim()))
        });
        let worker = |name: &str| {
            let mut command = wire.clientele_in(name);
            command
                .current_dir(dir)
                .args(["worker", "--coordinator", &url, "--name", name])
                .args(["--backend", "cpu", "--threads", "1", "--memory", "1GiB"]);
            with_certificate(&mut command, "worker");
            Process::start(&mut command)
        };
        let _workers = WORKERS.map(worker).into();
        let cluster = Self {
            wire,
            dir: dir.into(),
            url,
            coordinator,
            _workers,
        };
        wait_for("three workers", || {
            (cluster.look("").workers == WORKERS).then_some(())
        });
        cluster
    }

    /// What a client beside the coordinator is answered, whatever has become of the network.
    fn ask(&self, question: &[&str]) -> common::Ran {
        let mut command = self.wire.clientele_in("coordinator");
        command
            .current_dir(&self.dir)
            .args(question)
            .args(["--coordinator", &self.url]);
        with_certificate(&mut command, "client");
        common::run(&mut command)
    }

    /// Looks until it sees this; not so often that looking is what the machine does.
    fn wait_until(&self, what: &str, is_it: impl Fn(&Look) -> bool) -> Look {
        let started = Instant::now();
        loop {
            let look = self.look("run");
            if is_it(&look) {
                return look;
            }
            assert_ne!(look.state, "failed", "{}", look.job);
            assert!(started.elapsed() < PATIENCE, "{what}: {}", look.job);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The workers the coordinator knows, and the state of the run, if it has a name.
    fn look(&self, run: &str) -> Look {
        let words = ["status", run, "--format", "json"];
        let question: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let ran = self.ask(&question);
        let status: Value = serde_json::from_str(&ran.stdout)
            .unwrap_or_else(|_| panic!("{}\n{}", ran.stderr, self.coordinator.log()));
        let names = status["workers"].as_array().into_iter().flatten();
        let mut workers: Vec<String> = names
            .filter_map(|worker| worker["name"].as_str().map(str::to_owned))
            .collect();
        workers.sort();
        let job = &status["jobs"][0];
        Look {
            workers,
            state: job["state"].as_str().unwrap_or_default().to_owned(),
            pass: job["progress"]["pass"].as_u64().unwrap_or(0),
            job: job.clone(),
        }
    }
}

/// What `status` says.
struct Look {
    workers: Vec<String>,
    state: String,
    pass: u64,
    job: Value,
}

fn with_certificate(command: &mut Command, role: &str) {
    command
        .args(["--tls-ca", "certs/ca.pem"])
        .args(["--tls-cert", &format!("certs/{role}.pem")])
        .args(["--tls-key", &format!("certs/{role}-key.pem")]);
}

/// How long networks are cut; longer than a lease.
fn partition() -> Duration {
    let seconds = std::env::var("CLIENTELE_PARTITION_S").ok();
    let seconds = seconds.map_or(12, |text| text.parse().expect("whole seconds"));
    Duration::from_secs(seconds)
}

/// Cuts off one namespace in the middle of a run of `n_passes`, which leaves the coordinator with `workers_left`.
fn check_partition(name: &str, workers_left: &[&str], n_passes: u64) {
    let _alone = alone();
    let Some(wire) = Wire::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let table = dir.path().join("customers.parquet");
    // A cloud without groups, which takes more passes to divide than it is given.
    common::write(&table, &common::blobs(900_000, 4, 1), 100_000);
    let max_iter = n_passes.to_string();
    let model = [&MODEL[..], &["--max-iter", &max_iter]].concat();
    let expected = summary(fit(&table, &dir.path().join("in-process")).args(&model));
    println!(
        "{name}: {} passes in process, {:?}",
        expected["n_passes"], expected["seconds"]
    );

    let mut cluster = Cluster::start(wire, dir.path());
    let submit = [
        "submit",
        "customers.parquet",
        "--out",
        "run",
        "--run-id",
        "run",
    ];
    let submitted = cluster.ask(&[&submit[..], &model].concat());
    assert_eq!(submitted.code, Some(0), "{}", submitted.stderr);
    wait_for("the passes", || {
        (cluster.look("run").pass > 5).then_some(())
    });

    let cut_at = Instant::now();
    cluster.wire.cut(name);
    let mut seen_without = None;
    let mut pass_without = 0;
    while cut_at.elapsed() < partition() {
        let look = cluster.look("run");
        assert_eq!(look.state, "running", "it ended too early: {}", look.job);
        if look.workers == workers_left {
            seen_without.get_or_insert_with(|| cut_at.elapsed());
            pass_without = look.pass;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let seen_without = seen_without.expect("the partition is noticed");
    cluster.wire.heal(name);
    let healed_at = Instant::now();
    let look = cluster.wait_until("the workers are back", |look| look.workers == WORKERS);
    assert_eq!(look.state, "running", "it ended too early: {}", look.job);
    println!(
        "{name}: cut for {:?}, noticed after {seen_without:.1?}, at pass {pass_without}, all back {:.1?} after it was healed, at pass {}",
        partition(),
        healed_at.elapsed(),
        look.pass
    );

    let ended = cluster.wait_until("the run is done", |look| look.state == "done");
    let found = &ended.job["summary"];
    let counts = cluster.wire.order("count");
    println!(
        "{name}: done {:.1?} after the cut; packets {counts}",
        cut_at.elapsed()
    );
    println!(
        "{name}: {} answers dropped\n{}",
        found["dropped_answers"],
        cluster.coordinator.log()
    );
    assert_eq!(hashes(found), hashes(&expected));
    clientele_data::run_dir::verify(&*dir.path().join("run")).unwrap();
    for what in ["lost", "twice", "cut"] {
        assert!(counts[what].as_u64().unwrap() > 0, "{what}: {counts}");
    }
}

#[test]
fn a_worker_that_is_cut_off_in_mid_run_changes_nothing() {
    // On this network three passes take a second, and the run must outlast the partition.
    let n_passes = 4 * (partition().as_secs() + 8);
    check_partition("w0", &["w1", "w2"], n_passes);
}

#[test]
fn a_coordinator_that_is_cut_off_from_all_in_mid_run_changes_nothing() {
    check_partition("coordinator", &[], 60);
}
