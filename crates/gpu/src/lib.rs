//! The wgpu backend: grid k-means passes on Vulkan, Metal and DirectX 12 devices, with the same bits as the CPU.
//!
//! The device computes scores in `f32` and proves which rows it is sure of ([`clientele_kmeans`] explains why that is enough);
//! the others come back as a list and are settled here in exact integers. Sums are integers, so no order of work can change
//! them. A device that answers a fixed problem wrongly when it is opened is refused.
//!
//! A pass goes over any number of blocks; their rows stay on the device, as far as there is room, and their sums until the end:
//!
//! ```no_run
//! use clientele_gpu::{GpuBackend, OpenOptions};
//! use clientele_kmeans::{Block, Centroids};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gpu = GpuBackend::open(&OpenOptions::default())?;
//! let block = Block::from_rows(0, 2, &[1, 2, 30, 40], vec![0, 1])?;
//! let mut pass = gpu.begin(&[Centroids::new(2, vec![0, 0, 20, 20])])?;
//! pass.add(&block)?;
//! assert_eq!(pass.finish()?[0].sums, [1, 2, 30, 40]);
//! # Ok(())
//! # }
//! ```
//!
//! Where things are: `shaders/*.wgsl` computes; `shaders/` here fills the templates in; `pipeline/<name>.rs` is the host side of the
//! shader of the same name, `pipeline/plan.rs` how work is cut; `candidate.rs` turns centroids into what the shader reads and
//! derives the error bound. `backend.rs` and `pass.rs` are the caller's side, `thread.rs` the one thread that owns device and queue. On it,
//! `passes.rs` are the open passes, `upload.rs` brings rows over, to `residency.rs` where they stay or to `slots.rs` where they do
//! not, `drain.rs` fetches what was found, and `settle.rs` makes partials of it. `device.rs` turns every failure into an error.

mod adapter;
mod backend;
mod candidate;
mod controls;
mod device;
mod drain;
mod memory;
mod pass;
mod passes;
mod pipeline;
mod residency;
pub mod self_test;
mod settle;
pub mod shaders;
mod slots;
mod thread;
mod upload;

pub use adapter::{AdapterReport, adapters};
pub use backend::{Fault, GpuBackend, OpenError, OpenOptions, doctor};
pub use memory::Remembered;
pub use pass::GpuPass;
