//! Device and queue, and every way they fail as a [`BackendError`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clientele_kmeans::BackendError;
use clientele_kmeans::cpu::TravelUnits;
use wgpu::{ErrorFilter, PollType};

use crate::shaders::Flaw;
use crate::{Fault, OpenOptions};

/// A dispatch is cut to a fraction of a second on slow GPUs; software devices on a busy machine need the rest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Submissions in flight, at most: a queue of many long dispatches looks like a hang to drivers.
const MAX_IN_FLIGHT: usize = 8;

/// Buffers of 4 GiB and more compute wrongly under Metal, and bindings stop at 2^31 - 1 bytes.
const MAX_BINDING_BYTES: u64 = 512 << 20;

/// Device and queue, with every way they fail turned into a [`BackendError`].
pub(crate) struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    /// Bytes of the largest buffer to bind.
    pub binding_bytes: u64,
    /// What the device says about that.
    allowed_binding_bytes: u64,
    health: Arc<Health>,
    armed: Cell<Option<Fault>>,
    faults_fired: Arc<AtomicU32>,
    in_flight: RefCell<VecDeque<wgpu::SubmissionIndex>>,
}

impl Gpu {
    /// The error is what the driver said.
    pub fn open(
        adapter: &wgpu::Adapter,
        options: &OpenOptions,
        faults_fired: Arc<AtomicU32>,
    ) -> Result<Self, String> {
        let offered = adapter.limits();
        let mut required_limits = wgpu::Limits::default().or_worse_values_from(&offered);
        required_limits.max_storage_buffer_binding_size = offered
            .max_storage_buffer_binding_size
            .min(MAX_BINDING_BYTES);
        required_limits.max_buffer_size = offered.max_buffer_size.min(2 * MAX_BINDING_BYTES);
        let allowed_binding_bytes = required_limits
            .max_storage_buffer_binding_size
            .min(required_limits.max_buffer_size);
        let binding_bytes =
            allowed_binding_bytes.min(options.binding_limit_bytes.unwrap_or(u64::MAX));
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("clientele"),
            required_limits,
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(request).map_err(|error| error.to_string())?;
        let health = Arc::new(Health::default());
        let on_loss = health.clone();
        device.set_device_lost_callback(move |reason, message| {
            on_loss.lose(&format!("{reason:?}: {message}"));
        });
        let on_error = health.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            on_error.lose(&error);
        }));
        Ok(Self {
            device,
            queue,
            binding_bytes,
            allowed_binding_bytes,
            health,
            armed: Cell::new(None),
            faults_fired,
            in_flight: RefCell::default(),
        })
    }

    /// An error if the device is known to be lost.
    pub fn check(&self) -> Result<(), BackendError> {
        match self.health.loss() {
            None => Ok(()),
            Some(reason) => Err(BackendError::DeviceLost { reason }),
        }
    }

    /// Declares the device lost, unless it already is for another reason, and says so.
    pub fn give_up(&self, reason: &dyn Display) -> BackendError {
        let reason = self.health.lose(reason);
        BackendError::DeviceLost { reason }
    }

    /// Runs `work` and takes what wgpu finds wrong with it for its result.
    pub fn guarded<T>(
        &self,
        work: impl FnOnce() -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let filters = [
            ErrorFilter::Internal,
            ErrorFilter::Validation,
            ErrorFilter::OutOfMemory,
        ];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let result = work();
        let mut found = Vec::new();
        // The last scope opened is the first to close.
        for scope in scopes.into_iter().rev() {
            found.extend(pollster::block_on(scope.pop()));
        }
        self.check()?;
        match (result, found.into_iter().next()) {
            (result, None) | (result @ Err(_), _) => result,
            (Ok(_), Some(wgpu::Error::OutOfMemory { source })) => Err(BackendError::OutOfMemory {
                reason: source.to_string(),
            }),
            (Ok(_), Some(error)) => Err(self.give_up(&error)),
        }
    }

    /// A new buffer, zeroed; mapped for writing when `is_mapped`.
    pub fn create_buffer(
        &self,
        label: &'static str,
        n_bytes: u64,
        usage: wgpu::BufferUsages,
        is_mapped: bool,
    ) -> Result<wgpu::Buffer, BackendError> {
        self.refuse_if_armed(n_bytes)?;
        if n_bytes > self.allowed_binding_bytes {
            return Err(BackendError::OutOfMemory {
                reason: format!(
                    "{n_bytes} bytes at once, and {} are allowed",
                    self.allowed_binding_bytes
                ),
            });
        }
        self.guarded(|| {
            Ok(self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: n_bytes,
                usage,
                mapped_at_creation: is_mapped,
            }))
        })
    }

    /// A list of commands to fill.
    pub fn encoder(&self, label: &'static str) -> wgpu::CommandEncoder {
        self.device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(label) })
    }

    /// Submits, and waits for older work when there is very much of it.
    pub fn submit(
        &self,
        encoder: wgpu::CommandEncoder,
    ) -> Result<wgpu::SubmissionIndex, BackendError> {
        let index = self.queue.submit([encoder.finish()]);
        let mut in_flight = self.in_flight.borrow_mut();
        in_flight.push_back(index.clone());
        if in_flight.len() > MAX_IN_FLIGHT {
            self.wait_for(in_flight.pop_front())?;
        }
        Ok(index)
    }

    /// Waits until all submitted work is done. Nothing completes unless somebody waits.
    pub fn wait(&self) -> Result<(), BackendError> {
        self.in_flight.borrow_mut().clear();
        self.wait_for(None)
    }

    fn wait_for(
        &self,
        submission_index: Option<wgpu::SubmissionIndex>,
    ) -> Result<(), BackendError> {
        let waited = self.device.poll(PollType::Wait {
            submission_index,
            timeout: Some(ANSWER_TIMEOUT),
        });
        self.check()?;
        match waited {
            Ok(_) => Ok(()),
            Err(error) => Err(self.give_up(&error)),
        }
    }

    /// Waits until a buffer is mapped that `last_use` was the last to use.
    pub fn wait_for_map(
        &self,
        mapped: &Receiver<Result<(), wgpu::BufferAsyncError>>,
        last_use: &wgpu::SubmissionIndex,
    ) -> Result<(), BackendError> {
        let mut result = mapped.try_recv();
        if result == Err(TryRecvError::Empty) {
            self.wait_for(Some(last_use.clone()))?;
            result = mapped.try_recv();
        }
        if result == Err(TryRecvError::Empty) {
            self.wait()?;
            result = mapped.try_recv();
        }
        self.check()?;
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.give_up(&error)),
            Err(error) => Err(self.give_up(&error)),
        }
    }

    /// The injected loss, between the dispatch and the reading of its results.
    pub fn lose_device_if_due(&self) {
        if let Some(Fault::LoseDeviceAfter { passes: 0 }) = self.armed.get() {
            self.armed.set(None);
            self.device.destroy();
            self.faults_fired.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// From now on, passes meet `fault`.
    pub fn arm(&self, fault: Fault) {
        self.armed.set(Some(fault));
    }

    /// The mistake that shaders are to be compiled with.
    pub fn flaw(&self) -> Option<Flaw> {
        match self.armed.get() {
            Some(Fault::WrongShaders(flaw)) => {
                self.faults_fired.fetch_add(1, Ordering::Relaxed);
                Some(flaw)
            }
            _ => None,
        }
    }

    /// The injected mistake about the way that centroids have come.
    pub fn shorten_if_armed(&self, mut travel: TravelUnits) -> TravelUnits {
        if self.armed.get() == Some(Fault::ShortTravel) {
            self.faults_fired.fetch_add(1, Ordering::Relaxed);
            let shorten = |units: &mut u16| *units -= *units / 3;
            shorten(&mut travel.most);
            for (low, high) in &mut travel.of_cluster {
                shorten(low);
                shorten(high);
            }
        }
        travel
    }

    /// One pass was answered.
    pub fn count_pass(&self) {
        if let Some(Fault::LoseDeviceAfter { passes }) = self.armed.get() {
            let passes = passes.saturating_sub(1);
            self.armed.set(Some(Fault::LoseDeviceAfter { passes }));
        }
    }

    /// The injected lack of memory.
    fn refuse_if_armed(&self, n_bytes: u64) -> Result<(), BackendError> {
        match self.armed.get() {
            Some(Fault::RefuseBuffersAbove { n_bytes: limit }) if n_bytes > limit => {
                self.faults_fired.fetch_add(1, Ordering::Relaxed);
                Err(BackendError::OutOfMemory {
                    reason: format!("injected: {n_bytes} bytes asked for, {limit} granted"),
                })
            }
            _ => Ok(()),
        }
    }
}

/// Why the device was lost, if it was; written from driver callbacks.
#[derive(Default)]
struct Health {
    loss: Mutex<Option<String>>,
}

impl Health {
    fn loss(&self) -> Option<String> {
        self.loss
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps the first reason and returns it.
    fn lose(&self, reason: &dyn Display) -> String {
        self.loss
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| reason.to_string())
            .clone()
    }
}
