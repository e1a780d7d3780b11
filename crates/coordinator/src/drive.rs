//! The thin shell around the machine: real channels, a real clock.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use clientele_protocol::jobs::JobProgress;
use clientele_protocol::{WorkerChannel, WorkerEvent, WorkerId};

use crate::FitError;
use crate::machine::{Action, Event, Machine, Outcome};

/// Runs `machine` to its end over `workers`, whose events arrive on `events`.
///
/// # Errors
/// Whatever ended the run; [`FitError::NoWorkers`] when no worker is left to talk to.
pub fn drive(
    mut machine: Machine,
    workers: &BTreeMap<WorkerId, Box<dyn WorkerChannel>>,
    events: &Receiver<(WorkerId, WorkerEvent)>,
    started: Instant,
    progress: &mut dyn FnMut(&JobProgress),
) -> Result<Outcome, FitError> {
    loop {
        // In one process a worker that is gone says so; its silence, as while the process is suspended, means nothing.
        let Ok((worker, event)) = events.recv() else {
            return Err(FitError::NoWorkers {
                reason: "every worker has gone".into(),
            });
        };
        let event = Event::Worker(worker, event);
        let mut pending = vec![event];
        while let Some(event) = pending.pop() {
            for action in machine.step(event, started.elapsed()) {
                match action {
                    Action::Send(worker, task) => {
                        if workers[&worker].send(task).is_err() {
                            let reason = "its channel is closed".into();
                            pending.push(Event::Worker(worker, WorkerEvent::Lost { reason }));
                        }
                    }
                    // In one process nothing survives that could read it.
                    Action::Log(_) => pending.push(Event::Logged),
                    Action::Progress(state) => progress(&state),
                    Action::Finish(outcome) => return Ok(*outcome),
                    Action::Fail(error) => return Err(error),
                }
            }
        }
    }
}
