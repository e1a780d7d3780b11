//! S3 servers on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use clientele_data::{Folder, Location, Stores};
use object_store::aws::AmazonS3Builder;
use tempfile::TempDir;

use crate::common::cluster::{Process, wait_for};
use crate::network::{exchange, status};

/// The store that jobs name.
const STORE: &str = "lake=s3://bucket/prefix";
const ACCESS_KEY: &str = "clientele";
const SECRET_KEY: &str = "a key of tests";
const REGION: &str = "eu-central-1";

/// An S3 server with the empty bucket `bucket`.
pub struct Server {
    pub url: String,
    _process: Process,
    /// Where it keeps its objects, if that is not in memory.
    _dir: TempDir,
}

impl Server {
    /// A server that checks signatures and keeps objects as files. Of several who create one object it lets several win.
    ///
    /// # Panics
    /// When there is none and there must be one.
    pub fn s3s_fs() -> Option<Self> {
        let ci = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/s3s-fs");
        let named = std::env::var_os("CLIENTELE_S3S_FS").map(PathBuf::from);
        let candidates = [named, Some(ci), Some("s3s-fs".into())];
        let program = found(
            "s3s-fs (cargo install s3s-fs --version 0.14.1 --features binary)",
            candidates
                .into_iter()
                .flatten()
                .find(|program| runs(Command::new(program).arg("--version"))),
        )?;
        let dir = TempDir::new().expect("a folder");
        std::fs::create_dir(dir.path().join("bucket")).expect("a bucket is a folder");
        let mut command = Command::new("sh");
        command
            // It says where it is on standard output.
            .args(["-c", r#"exec "$@" >&2"#, "sh"])
            .arg(program)
            .env("RUST_LOG", "s3s_fs=info")
            .args(["--host", "127.0.0.1", "--port", "0"])
            .args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY])
            .arg(dir.path());
        Some(Self::start(&mut command, "server is running at ", dir))
    }

    /// A server in which one of many who create an object at once wins, as in S3 itself.
    ///
    /// # Panics
    /// When there is none and there must be one.
    pub fn moto() -> Option<Self> {
        let ci = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/python/bin/python");
        let has_moto =
            |python: &PathBuf| runs(Command::new(python).args(["-c", "import moto.server"]));
        let python = found(
            "moto (pip install 'moto[server]')",
            [ci, "python3".into()].into_iter().find(has_moto),
        )?;
        let mut command = Command::new(python);
        command.args(["-c", "from moto.server import main; main()"]);
        command.args(["-H", "127.0.0.1", "-p", "0"]);
        let dir = TempDir::new().expect("a folder");
        let server = Self::start(&mut command, "Running on ", dir);
        // Without a length a server waits for more.
        let create = b"PUT /bucket HTTP/1.0\r\nHost: s3\r\nContent-Length: 0\r\n\r\n";
        let answer = exchange(&server.url, create).expect("it answers");
        assert_eq!(status(&answer), Some(200), "no bucket could be made");
        Some(server)
    }

    fn start(command: &mut Command, announces: &str, dir: TempDir) -> Self {
        let mut process = Process::start(command);
        let url = wait_for("an S3 server", || {
            let log = process.log();
            assert!(process.is_alive(), "{log}");
            let line = log.lines().find_map(|line| line.split_once(announces));
            line.map(|(_, url)| url.trim().to_owned())
        });
        Self {
            url,
            _process: process,
            _dir: dir,
        }
    }

    /// The store of jobs, as a client of its own sees it, past all that is done to the others.
    pub fn lake(&self) -> Folder {
        let client = AmazonS3Builder::new()
            .with_endpoint(&self.url)
            .with_allow_http(true)
            .with_region(REGION)
            .with_bucket_name("bucket")
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .build();
        let client = Arc::new(client.expect("an address"));
        let stores = Stores::default().with_object_store("lake", client, "prefix");
        let root = Location::new("lake", "").expect("a store's own folder");
        stores.and_then(|s| s.folder(&root)).expect("a store")
    }
}

/// Lets a process use the S3 server at `url` as the store `lake`, and no other.
pub fn use_lake(command: &mut Command, url: &str) {
    command
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("AWS_REGION", REGION)
        .env("AWS_ENDPOINT_URL", url)
        .env("AWS_ALLOW_HTTP", "true")
        .args(["--store", STORE]);
}

/// Copies a folder of the store to a disk.
pub fn download(from: &Folder, to: &Path) {
    for name in from.list().expect("it lists") {
        let bytes = from.read(&name).expect("it reads").expect("it is there");
        let path = to.join(&name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("written");
    }
}

/// What a test needs, or a word on why it is skipped.
fn found<T>(what: &str, found: Option<T>) -> Option<T> {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let required = is_set("CI") || std::env::var("CLIENTELE_REQUIRE_S3").is_ok_and(|v| v == "1");
    assert!(found.is_some() || !required, "there must be {what}");
    if found.is_none() {
        println!("skipped: there is no {what}");
    }
    found
}

fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
