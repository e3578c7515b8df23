//! WebSocket, the server's side: from an HTTP request to an accepted upgrade, from bytes to messages.
//! Owns what RFC 6455 demands of a client, and what is said to one that does otherwise.
//! # Invariants: the handshake and the decoder are pure (headers and bytes in, decisions out); a peer
//! can cause a refusal or a violation, never a panic and never more memory than the limits say.
//! # Not here: paths and tokens (`http`), the bytes of events (`dialect`).

pub mod connection;
pub mod decoder;
pub mod extensions;
pub mod handshake;
mod head;
pub mod origin;
pub mod violation;
