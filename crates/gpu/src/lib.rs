//! The wgpu backend: grid k-means passes on Vulkan, Metal and DirectX 12 devices, with the same bits as the CPU.
//!
//! The device computes scores in `f32` and proves which rows it is sure of ([`clientele_kmeans`] explains why that is enough);
//! the others come back as a list and are settled here in exact integers. Sums are integers, so no order of work can change
//! them. A device that answers a fixed problem wrongly when it is opened is refused.
//!
//! Where things are: `shaders/*.wgsl` computes, `pipeline/<name>.rs` is the host side of the shader of the same name,
//! `candidate.rs` turns centroids into what the shader reads and derives the error bound, `device.rs` is the one thread that
//! owns device and queue, `adapter.rs` lists and picks, `backend.rs` puts it together.
//!
//! ```no_run
//! use clientele_gpu::{GpuBackend, OpenOptions};
//! use clientele_kmeans::Backend;
//!
//! let gpu = GpuBackend::open(&OpenOptions::default())?;
//! println!("{}", gpu.name());
//! # Ok::<(), clientele_gpu::OpenError>(())
//! ```

mod adapter;
mod backend;
mod candidate;
mod controls;
mod device;
mod drain;
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
pub use pass::GpuPass;
