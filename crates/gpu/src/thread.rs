//! The one thread that owns device and queue, so that nobody else ever waits inside the driver.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use clientele_kmeans::BackendError;

use crate::controls::{self, Control};
use crate::device::Gpu;
use crate::drain::Outcome;
use crate::passes::{Opening, Passes};
use crate::pipeline::assign::AssignPipelines;
use crate::pipeline::remember::RememberPipelines;
use crate::residency::Shared;
use crate::upload::{Room, RoomRequest};
use crate::{Fault, OpenOptions};

/// The way to the device thread; dropping it ends the thread after what is in hand.
#[derive(Debug)]
pub(crate) struct DeviceThread {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

type Reply<T> = Sender<Result<T, BackendError>>;

enum Request {
    Begin(Opening, Reply<u64>),
    Room(RoomRequest, Reply<Room>),
    Filled(u64, Room),
    Returned(Room),
    Run(u64, Vec<u64>),
    Finish(u64, Vec<u64>, Reply<Outcome>),
    Abandon(u64),
    Retain(BTreeSet<u64>),
    Measure(Control, Reply<f64>),
    Arm(Fault),
}

impl DeviceThread {
    /// Opens the device on a new thread. The error is what the driver said.
    pub fn spawn(
        adapter: wgpu::Adapter,
        options: &OpenOptions,
        shared: Arc<Shared>,
        faults_fired: Arc<AtomicU32>,
    ) -> Result<Self, String> {
        let (requests, incoming) = mpsc::channel();
        let (opened, is_open) = mpsc::channel();
        let options = options.clone();
        let thread = thread::Builder::new()
            .name("clientele-gpu".to_owned())
            .spawn(move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    let is_software = adapter.get_info().device_type == wgpu::DeviceType::Cpu;
                    let gpu = Gpu::open(&adapter, &options, faults_fired)?;
                    let assign = AssignPipelines::new(&gpu, options.checked_shaders)
                        .map_err(|error| error.to_string())?;
                    let remember = RememberPipelines::new(&gpu, options.checked_shaders)
                        .map_err(|error| error.to_string())?;
                    Ok(Passes::new(gpu, assign, remember, shared, is_software))
                }));
                match outcome {
                    Ok(Ok(passes)) => {
                        let _ = opened.send(Ok(()));
                        serve(passes, &incoming);
                    }
                    Ok(Err(reason)) => drop(opened.send(Err(reason))),
                    Err(_) => drop(opened.send(Err("the driver panicked".to_owned()))),
                }
            })
            .map_err(|error| error.to_string())?;
        is_open
            .recv()
            .unwrap_or_else(|_| Err("the device thread ended".to_owned()))?;
        Ok(Self {
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// Opens a pass and gives its number.
    pub fn begin(&self, opening: Opening) -> Result<u64, BackendError> {
        self.ask(|reply| Request::Begin(opening, reply))
    }

    /// Waits for a buffer to fill.
    pub fn room(&self, request: RoomRequest) -> Result<Room, BackendError> {
        self.ask(|reply| Request::Room(request, reply))
    }

    /// Has a filled buffer gone over.
    pub fn filled(&self, pass: u64, room: Room) {
        self.send(Request::Filled(pass, room));
    }

    /// Gives a buffer back that could not be filled.
    pub fn returned(&self, room: Room) {
        self.send(Request::Returned(room));
    }

    /// Has resident blocks gone over.
    pub fn run(&self, pass: u64, serials: Vec<u64>) {
        self.send(Request::Run(pass, serials));
    }

    /// Has resident blocks gone over and waits for what the pass came to.
    pub fn finish(&self, pass: u64, serials: Vec<u64>) -> Result<Outcome, BackendError> {
        self.ask(|reply| Request::Finish(pass, serials, reply))
    }

    /// Forgets a pass.
    pub fn abandon(&self, pass: u64) {
        self.send(Request::Abandon(pass));
    }

    /// Forgets all resident blocks but these.
    pub fn retain(&self, serials: BTreeSet<u64>) {
        self.send(Request::Retain(serials));
    }

    /// Waits for a measurement.
    pub fn measure(&self, control: Control) -> Result<f64, BackendError> {
        self.ask(|reply| Request::Measure(control, reply))
    }

    /// From now on, passes meet `fault`.
    pub fn arm(&self, fault: Fault) {
        self.send(Request::Arm(fault));
    }

    fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, BackendError> {
        let (reply, answer) = mpsc::channel();
        self.send(request(reply));
        answer.recv().unwrap_or_else(|_| {
            Err(BackendError::DeviceLost {
                reason: "the device thread ended".to_owned(),
            })
        })
    }

    fn send(&self, request: Request) {
        if let Some(requests) = &self.requests {
            // If the thread is gone, so is the way back in the request, and whoever waits for an answer sees that.
            let _ = requests.send(request);
        }
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It has caught its panics; there is nothing to learn from the result.
            let _ = thread.join();
        }
    }
}

fn serve(mut passes: Passes, incoming: &Receiver<Request>) {
    // Those who wait for a buffer while all are with others who fill theirs.
    let mut waiting: VecDeque<(RoomRequest, Reply<Room>)> = VecDeque::new();
    for request in incoming {
        match request {
            Request::Begin(opening, reply) => {
                let _ = reply.send(attempt(&mut passes, |p| p.begin(opening)));
            }
            Request::Room(request, reply) => waiting.push_back((request, reply)),
            Request::Filled(pass, room) => {
                let _ = attempt(&mut passes, |p| {
                    p.filled(pass, room);
                    Ok(())
                });
            }
            Request::Returned(room) => passes.returned(room),
            Request::Run(pass, serials) => {
                let _ = attempt(&mut passes, |p| {
                    p.run_resident(pass, &serials);
                    Ok(())
                });
            }
            Request::Finish(pass, serials, reply) => {
                let outcome = attempt(&mut passes, |p| p.finish(pass, &serials));
                passes.gpu.count_pass();
                let _ = reply.send(outcome);
            }
            Request::Abandon(pass) => passes.abandon(pass),
            Request::Retain(serials) => passes.retain(&serials),
            Request::Measure(control, reply) => {
                let _ = reply.send(attempt(&mut passes, |p| controls::measure(&p.gpu, control)));
            }
            Request::Arm(fault) => passes.arm(fault),
        }
        while let Some((mut request, reply)) = waiting.pop_front() {
            match attempt(&mut passes, |p| p.room(&mut request)) {
                // The next buffer that is filled makes the round.
                Ok(None) => {
                    waiting.push_front((request, reply));
                    break;
                }
                Ok(Some(room)) => drop(reply.send(Ok(room))),
                Err(error) => drop(reply.send(Err(error))),
            }
        }
    }
}

/// wgpu panics when the driver fails in the middle of a wait.
fn attempt<T>(
    passes: &mut Passes,
    work: impl FnOnce(&mut Passes) -> Result<T, BackendError>,
) -> Result<T, BackendError> {
    passes.gpu.check()?;
    catch_unwind(AssertUnwindSafe(|| work(passes)))
        .unwrap_or_else(|_| Err(passes.gpu.give_up(&"the driver panicked")))
}
