//! A worker in the coordinator's process: a thread behind the same channel a cluster uses.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Sender};

use clientele_protocol::{ChannelClosed, Task, WorkerChannel, WorkerEvent, WorkerId};

use crate::Worker;

/// The queue to a worker's thread.
pub struct InProcess {
    tasks: Sender<Task>,
}

impl InProcess {
    /// Starts `worker` on a thread of its own; what it says goes to `events` under the name `id`. Ends with the channel.
    pub fn start(worker: Worker, id: WorkerId, events: Sender<(WorkerId, WorkerEvent)>) -> Self {
        let (tasks, queue) = mpsc::channel::<Task>();
        std::thread::spawn(move || {
            // A closed queue of events means that the run is over: then there is nobody to tell.
            let _ = events.send((
                id,
                WorkerEvent::Joined {
                    resident: Vec::new(),
                },
            ));
            while let Ok(task) = queue.recv() {
                let event = match catch_unwind(AssertUnwindSafe(|| worker.run(&task))) {
                    Ok(reply) => WorkerEvent::Reply(reply),
                    Err(_) => WorkerEvent::Lost {
                        reason: "the worker panicked; see the message above".into(),
                    },
                };
                let lost = matches!(event, WorkerEvent::Lost { .. });
                if events.send((id, event)).is_err() || lost {
                    break;
                }
            }
        });
        Self { tasks }
    }
}

impl WorkerChannel for InProcess {
    fn send(&self, task: Task) -> Result<(), ChannelClosed> {
        self.tasks.send(task).map_err(|_| ChannelClosed)
    }
}
