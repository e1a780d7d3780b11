//! `clientele worker`.

use std::time::Duration;

use clientele_data::Stores;
use clientele_worker::remote::{AttendError, Execution, RemoteOptions, attend};
use clientele_worker::{Resources, WorkerOptions};
use tonic::service::interceptor::InterceptedService;

use super::{credentials, runtime, signals};
use crate::args::{MachineArgs, WorkerArgs};
use crate::failure::Failure;
use crate::machine::Machine;

/// Works for a coordinator until a signal, or until it is refused.
pub fn run(args: &WorkerArgs) -> Result<(), Failure> {
    let machine = Machine::new(&MachineArgs {
        backend: args.backend,
        adapter: args.adapter.clone(),
        threads: args.threads,
        memory: args.memory,
        ..MachineArgs::default()
    })?;
    let stores = Stores::parse(&args.stores.stores)?;
    let security = credentials(&args.client.coordinator, &args.client.credentials)?;
    let spill_dir = args.spill_dir.clone().unwrap_or_else(std::env::temp_dir);
    // Found out now rather than in the middle of a run.
    tempfile::tempfile_in(&spill_dir).map_err(|error| {
        Failure::usage(format!(
            "nothing can be written to `{}`",
            spill_dir.display()
        ))
        .because(&error)
        .hint("choose a folder you may write to with `--spill-dir`")
    })?;
    let resources = Resources::open(&WorkerOptions {
        engine: machine.engine,
        n_threads: machine.n_threads,
        memory_bytes: machine.memory_bytes,
    })?;
    let options = RemoteOptions {
        name: args.name.clone().unwrap_or_else(own_name),
        stores,
        spill_dir,
        execution: Execution::Thread,
    };
    eprintln!(
        "worker {} ({}) for {}",
        options.name,
        resources.devices().join(", "),
        args.client.coordinator
    );
    let runtime = runtime()?;
    let attended = runtime.block_on(async {
        let stop = signals::stop()?;
        let connect = || {
            let (endpoint, interceptor) = (security.endpoint().clone(), security.interceptor());
            async move {
                let channel = endpoint.connect().await?;
                Ok(InterceptedService::new(channel, interceptor))
            }
        };
        attend(resources, options, connect, stop)
            .await
            .map_err(|AttendError::Refused(error)| Failure::from(error))
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    attended
}

/// Host and process.
fn own_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => std::env::var("HOSTNAME").unwrap_or_else(|_| "worker".into()),
        host => host.to_owned(),
    };
    format!("{host}/{}", std::process::id())
}
