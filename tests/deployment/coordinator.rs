//! The role that is probed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::common::clientele;

/// A coordinator with its metrics on a port that was free.
pub struct Coordinator {
    process: Child,
    pub metrics: String,
    _folder: tempfile::TempDir,
}

impl Coordinator {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = clientele()
            .current_dir(folder.path())
            .args(["coordinator", "--listen", "127.0.0.1:0"])
            .args(["--metrics-listen", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut said = BufReader::new(process.stderr.take().expect("piped")).lines();
        let metrics = said.find_map(|line| {
            let line = line.ok()?;
            let url = line.strip_prefix("metrics on http://")?;
            Some(url.strip_suffix("/metrics")?.to_owned())
        });
        let metrics = metrics.expect("it says where its metrics are");
        // A pipe that nobody reads is full one day.
        std::thread::spawn(move || said.count());
        Self {
            process,
            metrics,
            _folder: folder,
        }
    }

    pub fn is_200(&self, path: &str) -> bool {
        let mut stream = TcpStream::connect(&self.metrics).expect("it listens");
        let mut answer = String::new();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").expect("sent");
        stream.read_to_string(&mut answer).expect("received");
        answer.split_whitespace().nth(1) == Some("200")
    }

    pub fn wait_for_200(&self, path: &str) {
        let started = Instant::now();
        while !self.is_200(path) {
            assert!(started.elapsed() < Duration::from_secs(30), "{path}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
