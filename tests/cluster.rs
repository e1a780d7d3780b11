//! Promises of a cluster of real processes: the same bytes as one process, whichever of them is killed, frozen or started again.

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clientele_coordinator::server::STEPS;
use common::cluster::{Cluster, alone, wait_for};
use common::{Mix, clientele, fit, hashes, json, summary};
use serde_json::Value;
use tempfile::TempDir;

/// What is fitted in all tests: several candidates and many passes, so that there is time for things to happen.
const MODEL: [&str; 12] = [
    "--id",
    "customer_id",
    "--k",
    "3..8",
    "--restarts",
    "3",
    "--tol",
    "0",
    "--max-iter",
    "40",
    "--seed",
    "5",
];

/// A table, and what it comes to in one process.
struct Expected {
    dir: TempDir,
    hashes: (String, String),
}

impl Expected {
    fn new(n_rows: usize, n_features: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let table = dir.path().join("customers.parquet");
        common::write(&table, &common::blobs(n_rows, n_features, 30), 100_000);
        let out = dir.path().join("in-process");
        let computed = summary(fit(&table, &out).args(MODEL));
        // Which starts are given up, and when, is part of the model: whatever happens to the cluster, it must be the same ones.
        assert_ne!(computed["n_given_up"], 0, "every start went to its end");
        let hashes = hashes(&computed);
        Self { dir, hashes }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn run_dir(&self, run: &str) -> PathBuf {
        self.dir().join(run)
    }

    /// Starts the run `run`.
    fn submit(&self, cluster: &Cluster, run: &str) {
        cluster.submit(run, "customers.parquet", run, &MODEL);
    }

    /// Whether the run has come to the same bytes, and is whole.
    fn check(&self, cluster: &Cluster, run: &str) {
        let found = cluster.watch(run);
        assert_eq!(hashes(&found), self.hashes, "{run}");
        let dir = self.run_dir(run);
        clientele_data::run_dir::verify(&*dir).unwrap();
        let model = json(&dir, "model.json");
        assert_eq!(model["model_hash"], Value::from(self.hashes.0.as_str()));
        let work = dir.join("_work");
        assert!(!work.exists(), "{} is left", work.display());
    }
}

/// Parts were computed as often as they were answered or had to be asked again, and no more.
fn check_redone(cluster: &Cluster) {
    let total = |name: &str| cluster.metric(&format!("clientele_{name}_parts_total"));
    let (leased, counted) = (total("leased"), total("counted"));
    let again = total("reopened") + total("twin");
    assert_eq!(leased, counted + again, "leased, counted and asked again");
}

#[test]
fn any_number_of_workers_gives_the_same_bytes() {
    let _alone = alone();
    let expected = Expected::new(900_000, 4);
    for n_workers in [1, 2, 4] {
        let mut cluster = Cluster::start(expected.dir());
        cluster.add_workers(n_workers);
        let run = format!("workers-{n_workers}");
        expected.submit(&cluster, &run);
        expected.check(&cluster, &run);
        check_redone(&cluster);
    }
}

#[test]
fn a_run_that_a_gpu_begins_and_cpus_end_gives_the_same_bytes() {
    if !common::has_gpu() {
        return;
    }
    let _alone = alone();
    let expected = Expected::new(600_000, 4);
    let mut cluster = Cluster::start(expected.dir());
    cluster.add_worker("gpu", |command| {
        command.args(["--backend", "gpu"]);
    });
    cluster.wait_for_workers(1);
    expected.submit(&cluster, "mixed");
    // Alone at first: a software device is so slow that others would have done its parts before it has.
    wait_for("a pass", || {
        let pass = cluster.job("mixed")["progress"]["pass"].as_u64();
        pass.filter(|pass| *pass > 1)
    });
    cluster.add_workers(2);
    drop(cluster.workers.remove(0));
    expected.check(&cluster, "mixed");
    let model = json(&expected.run_dir("mixed"), "model.json").to_string();
    assert!(
        model.contains("gpu") && model.contains("cpu"),
        "both have computed: {model}"
    );
}

/// Waits until the run is in the middle of something, somewhere a random choice has picked; false when it is over before.
fn wait_for_middle(cluster: &Cluster, run: &str, mix: &mut Mix) -> bool {
    let stages = ["statistics", "ingest", "seeding", "passes", "final"];
    // The last one is so short that it would often be missed.
    let stage = stages[(mix.next() * (stages.len() - 1) as f64) as usize];
    let at_pass = (mix.next() * 20.0) as u64;
    wait_for("the middle of a run", || {
        let job = cluster.job(run);
        if matches!(job["state"].as_str()?, "publishing" | "done") {
            return Some(false);
        }
        let progress = &job["progress"];
        let now = progress["stage"].as_str()?;
        let place = |name: &str| stages.iter().position(|stage| *stage == name);
        let is_there = place(now) >= place(stage);
        let passed = stage != "passes" || progress["pass"].as_u64()? >= at_pass;
        (is_there && passed).then_some(true)
    })
}

#[test]
fn workers_killed_at_any_moment_change_nothing() {
    let _alone = alone();
    let expected = Expected::new(900_000, 4);
    let mut cluster = Cluster::start(expected.dir());
    cluster.add_workers(4);
    let n_schedules = std::env::var("CLIENTELE_KILLS").map_or(10, |n| n.parse().unwrap());
    let mut n_fired = 0;
    for schedule in 0..n_schedules {
        let mut mix = Mix(1_000 + schedule);
        let run = format!("killed-{schedule}");
        expected.submit(&cluster, &run);
        // One or two of the four die; three in a row could die of one shard, and would have to be blamed on it.
        let n_kills = 1 + (mix.next() * 2.0) as usize;
        for _ in 0..n_kills {
            if !wait_for_middle(&cluster, &run, &mut mix) {
                break;
            }
            let victim = (mix.next() * cluster.workers.len() as f64) as usize;
            let mut victim = cluster.workers.swap_remove(victim);
            assert!(victim.is_alive());
            victim.signal("KILL");
            assert_eq!(victim.end(), None, "a signal ended it");
            n_fired += 1;
        }
        expected.check(&cluster, &run);
        let n_missing = 4 - cluster.workers.len();
        assert!(
            n_missing > 0,
            "the fault of schedule {schedule} has not fired"
        );
        cluster.add_workers(n_missing);
    }
    assert!(n_fired >= n_schedules, "{n_fired} faults");
    check_redone(&cluster);
}

#[test]
fn workers_frozen_and_thawed_change_nothing() {
    let _alone = alone();
    let expected = Expected::new(900_000, 4);
    let mut cluster = Cluster::start(expected.dir());
    cluster.add_workers(4);
    let n_schedules = std::env::var("CLIENTELE_FREEZES").map_or(3, |n| n.parse().unwrap());
    for schedule in 0..n_schedules {
        let mut mix = Mix(2_000 + schedule);
        let run = format!("frozen-{schedule}");
        expected.submit(&cluster, &run);
        assert!(wait_for_middle(&cluster, &run, &mut mix), "it was over");
        let victim = (mix.next() * 4.0) as usize;
        let frozen = Instant::now();
        cluster.workers[victim].signal("STOP");
        let name = format!("w{victim}");
        if schedule % 2 == 0 {
            // Its parts go to others within 10 s, and the run ends without it.
            wait_for("the loss of a frozen worker", || {
                (!cluster.worker_names().contains(&name)).then_some(())
            });
            assert!(
                frozen.elapsed() < Duration::from_secs(10),
                "{:?}",
                frozen.elapsed()
            );
            expected.check(&cluster, &run);
            cluster.workers[victim].signal("CONT");
        } else {
            // It comes back before anybody has missed it.
            std::thread::sleep(Duration::from_millis(800));
            cluster.workers[victim].signal("CONT");
            expected.check(&cluster, &run);
        }
        cluster.wait_for_workers(4);
    }
}

/// Parts of the stages that the last coordinator has computed itself, and how many stages it found done.
fn resumed_with(cluster: &Cluster) -> u64 {
    let log = cluster.coordinator.log();
    let found = log.lines().find_map(|line| {
        let (_, rest) = line.split_once("n_records")?;
        let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).collect();
        digits
            .split(|c: char| !c.is_ascii_digit())
            .find_map(|digits| digits.parse().ok())
    });
    found.unwrap_or_else(|| panic!("it says nothing of records: {log}"))
}

#[test]
fn a_coordinator_killed_at_any_step_goes_on_where_it_was() {
    let _alone = alone();
    let expected = Expected::new(600_000, 3);
    for step in STEPS {
        // Of the stages, an early one and one in the middle of the passes.
        let steps: Vec<(String, Option<u64>)> = match step {
            "stage-done" => vec![
                ("stage-done:1".into(), Some(1)),
                ("stage-done:20".into(), Some(20)),
            ],
            "stage-logged" => vec![
                ("stage-logged:1".into(), Some(2)),
                ("stage-logged:20".into(), Some(21)),
            ],
            other => vec![(other.into(), None)],
        };
        for (step, n_records) in steps {
            let run = step.replace(':', "-");
            let mut cluster = Cluster::start_with(expected.dir(), "127.0.0.1:0", |command| {
                command.env("CLIENTELE_INJECT", format!("die-at:{step}"));
            });
            cluster.add_workers(2);
            let mut client = clientele();
            client
                .current_dir(expected.dir())
                .args(["fit", "customers.parquet", "--out", &run, "--run-id", &run])
                .args(["--coordinator", &cluster.url, "--format", "json"])
                .args(MODEL);
            let mut client = common::cluster::Process::start(&mut client);
            let code = cluster.coordinator.end();
            assert_eq!(code, None, "{step}: {}", cluster.coordinator.log());
            if step == "committed" {
                // It might have died before its work files were gone.
                let log = expected.run_dir(&run).join("_work/log");
                std::fs::create_dir_all(&log).unwrap();
                std::fs::write(log.join("000000"), "stage 0").unwrap();
            }
            cluster.restart();
            assert_eq!(client.end(), Some(0), "{step}: {}", client.log());
            expected.check(&cluster, &run);
            if let Some(n_records) = n_records {
                assert_eq!(resumed_with(&cluster), n_records, "{step}");
            }
            check_redone(&cluster);
        }
    }
}

#[test]
fn of_two_coordinators_on_one_run_one_publishes() {
    let _alone = alone();
    let expected = Expected::new(900_000, 4);
    // Where the first one sleeps, whether its workers are gone when it wakes, and whether the results are its own as well by then.
    let sleeps = [
        ("stage-done:20", false, false),
        ("stage-logged:20", false, false),
        ("stage-logged:21", true, false),
        ("publishing", false, true),
        ("written", false, true),
        ("announced", false, true),
    ];
    for (step, is_left_alone, has_results) in sleeps {
        let run = step.replace(':', "-");
        let mut first = Cluster::start_with(expected.dir(), "127.0.0.1:0", |command| {
            command.env("CLIENTELE_INJECT", format!("stop-at:{step}"));
        });
        first.add_workers(2);
        expected.submit(&first, &run);
        // It sleeps through its own replacement.
        wait_for("a coordinator that sleeps", || {
            first.coordinator.is_stopped().then_some(())
        });
        let mut second = Cluster::start(expected.dir());
        second.add_workers(2);
        expected.check(&second, &run);
        assert_eq!(second.job(&run)["epoch"], 2, "{step}");
        let committed = std::fs::read(expected.run_dir(&run).join("_COMMITTED")).unwrap();
        if is_left_alone {
            first.workers.clear();
        }
        first.coordinator.signal("CONT");
        let asked = wait_for("the first coordinator's word on the run", || {
            let asked = first.job(&run);
            let is_over = asked["state"] == "failed" || asked["state"] == "done";
            is_over.then_some(asked)
        });
        // It gives way, or has written the same bytes.
        if has_results {
            assert_eq!(hashes(&asked["summary"]), expected.hashes, "{step}");
        } else {
            assert_eq!(asked["error"]["exit_code"], 6, "{step}: {asked}");
            let log = first.coordinator.log();
            let given_way = log.contains("another coordinator leads this run now");
            assert!(given_way, "{step}: {log}");
        }
        assert_eq!(
            std::fs::read(expected.run_dir(&run).join("_COMMITTED")).unwrap(),
            committed,
            "{step}"
        );
        clientele_data::run_dir::verify(&*expected.run_dir(&run)).unwrap();
        assert!(first.coordinator.is_alive(), "{step}");
    }
}

#[test]
fn a_worker_that_is_asked_to_leave_hands_back_what_it_has_not_answered() {
    let _alone = alone();
    let expected = Expected::new(900_000, 4);
    let mut cluster = Cluster::start(expected.dir());
    cluster.add_workers(3);
    expected.submit(&cluster, "drained");
    assert!(
        wait_for_middle(&cluster, "drained", &mut Mix(3)),
        "it was over"
    );
    let asked = Instant::now();
    cluster.workers[0].signal("TERM");
    assert_eq!(
        cluster.workers[0].end(),
        Some(0),
        "{}",
        cluster.workers[0].log()
    );
    assert!(asked.elapsed() < Duration::from_secs(25));
    expected.check(&cluster, "drained");
    check_redone(&cluster);
    // A coordinator ends as well, although a worker's stream is open.
    let asked = Instant::now();
    cluster.coordinator.signal("TERM");
    assert_eq!(cluster.coordinator.end(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(25));
}

#[test]
fn without_workers_a_run_waits_and_then_says_so() {
    let _alone = alone();
    let expected = Expected::new(50_000, 2);
    let mut cluster = Cluster::start(expected.dir());
    let waiting = ["--wait-for-workers", "3"];
    let model: Vec<&str> = MODEL.iter().chain(&waiting).copied().collect();
    cluster.submit("lonely", "customers.parquet", "lonely", &model);
    wait_for("waiting", || {
        let job = cluster.job("lonely");
        (job["progress"]["is_waiting"] == true).then_some(())
    });
    let job = wait_for("giving up", || {
        let job = cluster.job("lonely");
        (job["state"] == "failed").then_some(job)
    });
    assert_eq!(job["error"]["exit_code"], 5, "{job}");
    let message = job["error"]["message"].as_str().unwrap();
    assert!(message.contains("no worker for 3 s"), "{message}");
    // The folder can be used again, and a worker that comes late is welcome.
    expected.submit(&cluster, "late");
    cluster.add_workers(1);
    expected.check(&cluster, "late");
}

#[test]
fn several_jobs_share_the_workers_and_one_can_be_cancelled() {
    let _alone = alone();
    let expected = Expected::new(900_000, 4);
    let mut cluster = Cluster::start(expected.dir());
    cluster.add_workers(2);
    let runs = ["a", "b", "c"];
    runs.iter().for_each(|run| expected.submit(&cluster, run));
    assert_eq!(cluster.job("c")["state"], "queued", "two run, one waits");
    assert!(wait_for_middle(&cluster, "b", &mut Mix(1)), "it was over");
    let cancelled = clientele()
        .args(["cancel", "b", "--coordinator", &cluster.url])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&cancelled.stdout), "b cancelled\n");
    expected.check(&cluster, "a");
    expected.check(&cluster, "c");
    assert_eq!(cluster.job("b")["state"], "cancelled");
    assert!(!expected.run_dir("b").join("_COMMITTED").exists());
}
