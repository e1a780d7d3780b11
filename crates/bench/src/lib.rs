//! What a machine gives and what a pass makes of it: `clientele bench`.
//!
//! The same Lloyd passes as a fit, on generated rows that are the same on every machine, over a grid of shapes, on every device.
//! Beside the time stand the limit that the machine sets (its memory bandwidth and its multiply-adds a second, measured in the same
//! minute) and the answer: inertia and a hash of the model, which must be one for all devices of all machines.
//!
//! Where things are: `data.rs` makes rows, `device.rs` is what a device must do (`device/cpu.rs`, `device/gpu.rs`), `controls.rs`
//! measures the CPU's limits, `machine.rs` says which it is, `run.rs` goes over the grid, `report.rs` is what is saved, `table.rs`, `page.rs` and `compare.rs` show it.

mod chart;
mod compare;
mod controls;
mod data;
pub mod device;
mod error;
mod machine;
mod page;
mod report;
mod roofline;
mod run;
mod settings;
mod table;
mod text;

pub use compare::{Comparison, compare};
pub use data::Data;
pub use device::Device;
pub use error::BenchError;
pub use page::page;
pub use report::{
    Controls, DeviceKind, DeviceReport, Machine, PassMillis, Point, Report, SCHEMA, Shape,
};
pub use roofline::{Bound, Limit};
pub use run::{measure_controls, run};
pub use settings::Settings;
