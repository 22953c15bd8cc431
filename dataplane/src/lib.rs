//! The byte path of Modelmesh: gRPC and REST in, a model server or a peer out.
//!
//! It moves requests and decides nothing: where copies are is in the [`table`], which the policy fills; for a
//! model without a usable copy it asks the policy ([`miss`]). The way of a request is in [`route`].

pub mod attempt;
pub mod body;
pub mod budget;
pub mod call;
pub mod compression;
pub mod cork;
pub mod exchange;
pub mod grpc;
pub mod guard;
pub mod headers;
pub mod inbox;
pub mod log;
pub mod message;
pub mod messages;
pub mod metrics;
pub mod miss;
pub mod outgoing;
pub mod plane;
pub mod policy;
#[cfg(feature = "python")]
mod python;
pub mod rest;
pub mod route;
pub mod rpcs;
pub mod server;
pub mod service;
pub mod several_models;
pub mod status;
pub mod table;
pub mod upstream;
pub mod v2;
pub mod whole;
pub mod worker;
