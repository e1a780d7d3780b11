//! The first signal asks a server to end; a second one ends it at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;

/// What a shell reports of a process that was interrupted.
const INTERRUPTED: i32 = 130;

/// Becomes true at the first SIGTERM or SIGINT. Must be called inside a runtime.
pub fn stop() -> Result<watch::Receiver<bool>, Failure> {
    let listen = |kind: SignalKind| {
        signal(kind).map_err(|error| Failure::bug("signals cannot be received").because(&error))
    };
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let (sender, stop) = watch::channel(false);
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        eprintln!("ending; a second signal ends at once");
        sender.send_replace(true);
        either(&mut terminate, &mut interrupt).await;
        std::process::exit(INTERRUPTED);
    });
    Ok(stop)
}

async fn either(a: &mut Signal, b: &mut Signal) {
    tokio::select! {
        _ = a.recv() => {}
        _ = b.recv() => {}
    }
}
