//! A scriptable model server (`echo-runtime`) and a load generator (`echo-load`), to test and measure the mesh.
//!
//! The server speaks the SPI and V2 inference, holds no model but accounts for the memory of each as a strict
//! model server would: what it counts is the evidence of the figures in `bench/results`. Both programs run on
//! one thread, so that each costs one core at most.

pub mod channel;
pub mod grpc;
pub mod memory;
pub mod messages;
pub mod path;
pub mod program;
pub mod report;
pub mod server;
pub mod stats;
pub mod traffic;
