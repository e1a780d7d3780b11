//! A network in front of an HTTP server that refuses requests, loses answers, and holds a request until it is told to let it go.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::common::Mix;

/// How long a request may be held, and a server may take.
const PATIENCE: Duration = Duration::from_secs(120);

const REFUSAL: &[u8] = b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 60\r\nConnection: close\r\n\r\n\
<Error><Code>SlowDown</Code><Message>later</Message></Error>";

/// What stands between clients and a server.
pub struct Network {
    /// What clients dial.
    pub url: String,
    wire: Arc<Wire>,
}

struct Wire {
    server: String,
    fault_share: f64,
    mix: Mutex<Mix>,
    n_requests: AtomicU64,
    n_faults: AtomicU64,
    n_lost_answers: AtomicU64,
    trap: Mutex<Option<Trap>>,
    passed: Mutex<Vec<Passed>>,
}

/// A request that the server has answered, whether the answer arrived or not.
struct Passed {
    method: String,
    path: String,
    status: u16,
}

struct Trap {
    method: &'static str,
    path_end: String,
    sprung: Sender<()>,
    gate: Receiver<()>,
}

/// A request that is held until this is dropped.
pub struct Held {
    sprung: Receiver<()>,
    _gate: Sender<()>,
}

impl Held {
    /// Waits until the request has come.
    pub fn wait(&self) {
        let came = self.sprung.recv_timeout(PATIENCE);
        came.expect("the request comes");
    }
}

impl Network {
    /// Passes everything on to `server`.
    pub fn calm(server: &str) -> Self {
        Self::start(server, 0.0)
    }

    /// Spoils `fault_share` of all requests. Of four that are spoiled three are refused with a 503; the fourth is passed on, but
    /// what comes back is, in turn, a 503 or nothing.
    pub fn faulty(server: &str, fault_share: f64) -> Self {
        Self::start(server, fault_share)
    }

    fn start(server: &str, fault_share: f64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let wire = Arc::new(Wire {
            server: server.to_owned(),
            fault_share,
            mix: Mutex::new(Mix(30)),
            n_requests: AtomicU64::new(0),
            n_faults: AtomicU64::new(0),
            n_lost_answers: AtomicU64::new(0),
            trap: Mutex::default(),
            passed: Mutex::default(),
        });
        let shared = wire.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let wire = shared.clone();
                // A client that hangs up, or a server that is gone, is what clients must live with.
                std::thread::spawn(move || drop(wire.carry(stream)));
            }
        });
        Self {
            url: format!("http://{address}"),
            wire,
        }
    }

    /// Holds the next request with this method to a path with this end.
    pub fn hold(&self, method: &'static str, path_end: String) -> Held {
        let (sprung, was_sprung) = channel();
        let (release, gate) = channel();
        *lock(&self.wire.trap) = Some(Trap {
            method,
            path_end,
            sprung,
            gate,
        });
        Held {
            sprung: was_sprung,
            _gate: release,
        }
    }

    /// What the server has answered so far to requests with this method to paths with this end.
    pub fn statuses(&self, method: &str, path_end: &str) -> Vec<u16> {
        let passed = lock(&self.wire.passed);
        let is_meant = |p: &&Passed| p.method == method && p.path.ends_with(path_end);
        passed.iter().filter(is_meant).map(|p| p.status).collect()
    }

    pub fn n_requests(&self) -> u64 {
        self.wire.n_requests.load(Ordering::Relaxed)
    }

    pub fn n_faults(&self) -> u64 {
        self.wire.n_faults.load(Ordering::Relaxed)
    }

    pub fn n_lost_answers(&self) -> u64 {
        self.wire.n_lost_answers.load(Ordering::Relaxed)
    }
}

impl Wire {
    fn carry(&self, mut client: TcpStream) -> io::Result<()> {
        let request = Request::read(&mut client)?;
        self.n_requests.fetch_add(1, Ordering::Relaxed);
        self.spring(&request);
        if lock(&self.mix).next() >= self.fault_share {
            return client.write_all(&self.pass(&request)?);
        }
        let nth = self.n_faults.fetch_add(1, Ordering::Relaxed);
        if nth % 4 != 3 {
            return client.write_all(REFUSAL);
        }
        self.pass(&request)?;
        match self.n_lost_answers.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => client.write_all(REFUSAL),
            _ => Ok(()),
        }
    }

    fn spring(&self, request: &Request) {
        let is_meant =
            |t: &mut Trap| t.method == request.method && request.path.ends_with(&t.path_end);
        let sprung = lock(&self.trap).take_if(is_meant);
        let Some(trap) = sprung else {
            return;
        };
        let _ = trap.sprung.send(());
        // Whoever holds it says so by letting go.
        let _ = trap.gate.recv_timeout(PATIENCE);
    }

    fn pass(&self, request: &Request) -> io::Result<Vec<u8>> {
        let answer = exchange(&self.server, &request.bytes)?;
        lock(&self.passed).push(Passed {
            method: request.method.clone(),
            path: request.path.clone(),
            status: status(&answer).unwrap_or(0),
        });
        Ok(answer)
    }
}

/// A request as it goes on to the server.
struct Request {
    method: String,
    path: String,
    bytes: Vec<u8>,
}

impl Request {
    fn read(client: &mut TcpStream) -> io::Result<Self> {
        let mut reader = BufReader::new(client);
        let mut head = String::new();
        let mut n_body_bytes = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line == "\r\n" {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => n_body_bytes = value.trim().parse().unwrap_or(0),
                "connection" => continue,
                _ => {}
            }
            head += &line;
        }
        let mut words = head.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let mut bytes = (head + "Connection: close\r\n\r\n").into_bytes();
        reader.take(n_body_bytes).read_to_end(&mut bytes)?;
        Ok(Self {
            method,
            path,
            bytes,
        })
    }
}

/// Everything that the server at `url` answers to one request, after which it closes the connection.
pub fn exchange(url: &str, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(url.trim_start_matches("http://"))?;
    server.set_read_timeout(Some(PATIENCE))?;
    server.write_all(request)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

/// The status of an HTTP answer.
pub fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line)
        .ok()?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
