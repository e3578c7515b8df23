//! What must hold for every input, one function for each thing that strangers can feed.
//! The fuzzers call these functions, and `tests/fuzz.rs` calls them with everything in `corpus`.
//! # Invariants: a function panics exactly if the broker's code breaks a promise; it needs no socket,
//! no clock and no file.
//! # Not here: what single inputs mean (the unit tests beside the code).

mod commands;
mod names;
mod queries;
mod streams;
mod tokens;

pub use commands::{json, json_proto_diff, proto};
pub use names::{filters, hops, proxy};
pub use queries::query;
pub use streams::{frames, ingress, stream_split, upgrade};
pub use tokens::jwt;

/// What can be done with an input.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder in `corpus`.
pub const TARGETS: [(&str, Target); 12] = [
    ("frames", frames),
    ("stream_split", stream_split),
    ("upgrade", upgrade),
    ("json", json),
    ("proto", proto),
    ("json_proto_diff", json_proto_diff),
    ("filters", filters),
    ("ingress", ingress),
    ("proxy", proxy),
    ("hops", hops),
    ("query", query),
    ("jwt", jwt),
];
