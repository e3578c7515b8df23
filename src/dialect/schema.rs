//! The types of `proto/fanfare/v1/fanfare.proto`, for whoever speaks protobuf as a client does.
//! # Not here: meaning (`Command`, `Event`); the broker itself reads and writes
//! without them, but for the values of enumerations.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated from the schema, which carries the documentation"
)]

include!(concat!(env!("OUT_DIR"), "/fanfare.v1.rs"));
