//! A cluster of real processes on this machine.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::clientele;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Clusters compute on all cores and are timed by their leases: one at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks until the answer is there.
///
/// # Panics
/// When it takes longer than anything may.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "{what} has not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process that is killed when the test is over, and what it says.
pub struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("it is piped");
        let lines = log.clone();
        std::thread::spawn(move || collect(stderr, &lines));
        Self { child, log }
    }

    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Whether a signal has made it stand still.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        // Its state comes after its name, which stands in brackets.
        stat.is_ok_and(|stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// Waits for its end; its exit code, if no signal ended it.
    pub fn end(&mut self) -> Option<i32> {
        let status = wait_for("the end of a process", || {
            self.child.try_wait().expect("it can be asked")
        });
        status.code()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stderr: ChildStderr, log: &Mutex<String>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push_str(&line);
        log.push('\n');
    }
}

/// A coordinator, its workers, and the folder that all of them work in.
pub struct Cluster {
    dir: PathBuf,
    pub coordinator: Process,
    pub url: String,
    metrics_url: String,
    pub workers: Vec<Process>,
}

impl Cluster {
    /// A coordinator in `dir`, which is the store `local`.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, "127.0.0.1:0", |_| ())
    }

    /// As [`Cluster::start`], on an address and with more settings.
    pub fn start_with(dir: &Path, listen: &str, more: impl FnOnce(&mut Command)) -> Self {
        let (coordinator, url, metrics_url) = coordinator(dir, listen, more);
        Self {
            dir: dir.into(),
            coordinator,
            url,
            metrics_url,
            workers: Vec::new(),
        }
    }

    /// The coordinator again, on the same address, after the first one has gone.
    pub fn restart(&mut self) {
        let address = self.url.trim_start_matches("http://").to_owned();
        let (coordinator, url, metrics_url) = coordinator(&self.dir, &address, |_| ());
        (self.coordinator, self.url, self.metrics_url) = (coordinator, url, metrics_url);
    }

    /// One more worker, with one thread.
    pub fn add_worker(&mut self, name: &str, more: impl FnOnce(&mut Command)) {
        let mut command = clientele();
        command
            .current_dir(&self.dir)
            .args(["worker", "--coordinator", &self.url, "--name", name])
            .args(["--threads", "1", "--memory", "1GiB"]);
        more(&mut command);
        self.workers.push(Process::start(&mut command));
    }

    /// `n` workers on the CPU, registered.
    pub fn add_workers(&mut self, n: usize) {
        let before = self.workers.len();
        for nth in before..before + n {
            self.add_worker(&format!("w{nth}"), |command| {
                command.args(["--backend", "cpu"]);
            });
        }
        self.wait_for_workers(before + n);
    }

    /// Waits until so many are registered.
    pub fn wait_for_workers(&self, n: usize) {
        wait_for("a registration", || {
            (self.worker_names().len() == n).then_some(())
        });
    }

    /// Names of the workers the coordinator knows.
    pub fn worker_names(&self) -> Vec<String> {
        let status = self.ask(&["status"]);
        let workers = status["workers"].as_array().into_iter().flatten();
        workers
            .filter_map(|worker| worker["name"].as_str().map(str::to_owned))
            .collect()
    }

    /// What a client's question is answered; null while the coordinator is away.
    pub fn ask(&self, question: &[&str]) -> Value {
        let mut command = clientele();
        command
            .args(question)
            .args(["--coordinator", &self.url, "--format", "json"]);
        let output = command.output().expect("it runs");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Hands over a fit of `table` into `out`, both below the folder, and does not wait for it.
    pub fn submit(&self, run: &str, table: &str, out: &str, more: &[&str]) {
        let mut command = clientele();
        command
            .current_dir(&self.dir)
            .args(["submit", table, "--out", out, "--run-id", run])
            .args(["--coordinator", &self.url])
            .args(more);
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    /// Where a run stands: state, stage, parts done in it, pass.
    pub fn job(&self, run: &str) -> Value {
        self.ask(&["status", run])["jobs"][0].clone()
    }

    /// Waits for the end of a run; what it has come to. Asking again and again would take a processor from the workers.
    pub fn watch(&self, run: &str) -> Value {
        let mut command = clientele();
        command
            .args(["watch", run, "--format", "json"])
            .args(["--coordinator", &self.url]);
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{run}: {said}");
        serde_json::from_slice(&output.stdout).expect("a summary")
    }

    /// A figure of `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let page = get(&self.metrics_url);
        let line = page.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        let figure = line.and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok());
        figure.unwrap_or_else(|| panic!("there is no {name} in {page}")) as u64
    }
}

fn coordinator(
    dir: &Path,
    listen: &str,
    more: impl FnOnce(&mut Command),
) -> (Process, String, String) {
    let mut command = clientele();
    command
        .current_dir(dir)
        .args(["coordinator", "--listen", listen])
        .args(["--metrics-listen", "127.0.0.1:0"]);
    more(&mut command);
    let mut process = Process::start(&mut command);
    let mut after = |what: &str| {
        wait_for(what, || {
            let log = process.log();
            let line = log.lines().find_map(|line| line.split_once(what));
            assert!(line.is_some() || process.is_alive(), "{log}");
            line.map(|(_, rest)| rest.trim().to_owned())
        })
    };
    let url = after("coordinator listening on ");
    let metrics_url = after("metrics on ");
    (process, url, metrics_url)
}

/// The body of a page over plain HTTP.
fn get(url: &str) -> String {
    use std::io::{Read, Write};
    let rest = url.trim_start_matches("http://");
    let (host, path) = rest.split_once('/').expect("a page");
    let mut stream = std::net::TcpStream::connect(host).expect("the page is served");
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}
