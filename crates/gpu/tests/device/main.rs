//! The backend on whatever adapter there is, software ones included.

mod faults;
mod parity;
mod passes;
mod problem;
mod remember;
