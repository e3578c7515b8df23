//! WebSocket, the server's side: from an HTTP request to an accepted upgrade, and from bytes to messages.
//! Owns what RFC 6455 demands of a client and what this server says to one that does otherwise.
//! # Invariants: everything here is pure: bytes and headers in, decisions out; a peer can cause a
//! refusal or a violation, never a panic and never more memory than its limit.
//! # Not here: sockets, sessions, the bytes of events (`dialect`), tokens.

pub mod connection;
pub mod decoder;
pub mod handshake;
mod head;
pub mod origin;
pub mod violation;
