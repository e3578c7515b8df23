//! Topics: the shared half of the broker, synchronous and without I/O.

pub mod message;
pub mod name;
