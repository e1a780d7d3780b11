//! `clientele coordinator`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clientele_coordinator::cluster::Limits;
use clientele_coordinator::server::{
    Injected, STEPS, ServeError, Server, ServerOptions, StorageCalls, metrics,
};
use clientele_data::{ErrorKind, Location, Stores};
use clientele_proto::connection;
use clientele_proto::security::ServerSecurity;
use tokio::net::TcpListener;

use super::publisher::BoardPublisher;
use super::{runtime, signals};
use crate::args::CoordinatorArgs;
use crate::failure::Failure;

/// Where jobs are remembered, in the first store.
const STATE: &str = "_clientele";

/// How long open connections may take to end after the first signal.
const GRACE: Duration = Duration::from_secs(5);

/// Leads a cluster until a signal.
pub fn run(args: &CoordinatorArgs) -> Result<(), Failure> {
    let stores = Stores::parse(&args.stores.stores)?;
    let state = match &args.state {
        Some(text) => text.parse::<Location>()?,
        None => {
            let first = args.stores.stores.first();
            let alias = first.and_then(|text| text.split_once('='));
            Location::new(alias.map_or("local", |(alias, _)| alias), STATE)?
        }
    };
    let security = ServerSecurity::new(
        args.listen,
        args.tls_cert.clone(),
        args.tls_key.clone(),
        args.tls_ca.clone(),
        args.token_file.clone(),
    )?;
    for warning in security.warnings() {
        eprintln!("warning: {warning}");
    }
    let scheme = if security.is_encrypted() {
        "https"
    } else {
        "http"
    };
    let counted = Arc::new(metrics::Metrics::new());
    let options = ServerOptions {
        state: stores.folder(&state)?,
        stores: stores.clone(),
        limits: Limits {
            max_running: args.max_running.max(1),
            max_queued: args.max_queued,
            max_workers: args.max_workers,
            wait_for_workers: Duration::from_secs(args.wait_for_workers),
            ..Limits::default()
        },
        publisher: Arc::new(BoardPublisher),
        security,
        has_reflection: args.reflection,
        storage: StorageCalls::Threads,
        metrics: counted.clone(),
        injected: injected()?,
    };
    let failed = |error| match error {
        ServeError::State(error) => {
            Failure::from(error).while_reading(Path::new(&state.to_string()))
        }
        error => Failure::new(ErrorKind::Transient, "the coordinator has stopped").because(&error),
    };
    let runtime = runtime()?;
    let served = runtime.block_on(async {
        let mut stop = signals::stop()?;
        let cannot_listen = |error: std::io::Error| cannot_bind("--listen", args.listen, &error);
        let incoming = connection::listen(args.listen).map_err(cannot_listen)?;
        let address = incoming.local_addr().map_err(cannot_listen)?;
        let server = tokio::select! {
            opened = Server::open(options) => opened.map_err(failed)?,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        // Whoever starts it with port 0 reads the port here.
        eprintln!("coordinator listening on {scheme}://{address}");
        if let Some(address) = args.metrics_listen {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|error| cannot_bind("--metrics-listen", address, &error))?;
            if let Ok(address) = listener.local_addr() {
                eprintln!("metrics on http://{address}/metrics");
            }
            let mut stop = stop.clone();
            let ended = async move {
                let _ = stop.wait_for(|stop| *stop).await;
            };
            tokio::spawn(metrics::serve(listener, counted, ended));
        }
        let serving = server.serve(incoming, stop.clone());
        // A connection that stays open must not keep the process alive.
        let too_long = async {
            let _ = stop.wait_for(|stop| *stop).await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            served = serving => served.map_err(failed),
            () = too_long => Ok(()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// `CLIENTELE_INJECT=die-at:STEP` kills the coordinator at a step of its cycle, `stop-at:STEP` makes it stand still: for tests.
fn injected() -> Result<Option<Injected>, Failure> {
    let Ok(wanted) = std::env::var("CLIENTELE_INJECT") else {
        return Ok(None);
    };
    let (what, step) = wanted.split_once(':').unwrap_or_default();
    let name = step.split(':').next().unwrap_or_default();
    match (what, STEPS.contains(&name)) {
        ("die-at", true) => Ok(Some(Injected::Death(step.to_owned()))),
        ("stop-at", true) => Ok(Some(Injected::Stop(step.to_owned()))),
        _ => Err(Failure::usage(format!(
            "CLIENTELE_INJECT={wanted} is not `die-at:` or `stop-at:` and one of {}",
            STEPS.join(", ")
        ))),
    }
}

fn cannot_bind(flag: &str, address: SocketAddr, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot listen on {address}"))
        .because(error)
        .hint(format!(
            "choose another port with `{flag}`; port 0 is any free one"
        ))
}
