//! A worker in the coordinator's process: a thread behind the same channel a cluster uses.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use clientele_protocol::{ChannelClosed, Task, WorkerChannel, WorkerEvent, WorkerId};

use crate::Worker;

/// The queue to a worker's thread.
///
/// Dropped, the thread ends after the task at hand. Where it has GPUs this is waited for: a process must not end while a driver is at work.
pub struct InProcess {
    tasks: Option<Sender<Task>>,
    has_ended: Arc<AtomicBool>,
    with_gpus: Option<JoinHandle<()>>,
}

impl InProcess {
    /// Starts `worker` on a thread of its own; what it says goes to `events` under the name `id`. Ends with the channel.
    pub fn start(worker: Worker, id: WorkerId, events: Sender<(WorkerId, WorkerEvent)>) -> Self {
        let (tasks, queue) = mpsc::channel::<Task>();
        let has_ended = Arc::new(AtomicBool::new(false));
        let has_gpus = worker.has_gpus();
        let ends = has_ended.clone();
        let thread = thread::spawn(move || {
            // A closed queue of events means that the run is over: then there is nobody to tell.
            let _ = events.send((
                id,
                WorkerEvent::Joined {
                    resident: Vec::new(),
                },
            ));
            while let Ok(task) = queue.recv() {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
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
        Self {
            tasks: Some(tasks),
            has_ended,
            with_gpus: has_gpus.then_some(thread),
        }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        self.tasks = None;
        if let Some(thread) = self.with_gpus.take() {
            // It has caught its panics; there is nothing to learn from the result.
            let _ = thread.join();
        }
    }
}

impl WorkerChannel for InProcess {
    fn send(&self, task: Task) -> Result<(), ChannelClosed> {
        let tasks = self.tasks.as_ref().ok_or(ChannelClosed)?;
        tasks.send(task).map_err(|_| ChannelClosed)
    }
}
