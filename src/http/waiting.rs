//! Answers whose bytes count among those that wait for connections.
//! # Invariants: they count from when they are made until the last of them is written or dropped.
//! # Not here: what becomes of a broker for which too much waits (`shard::pressure`).

use crate::metrics::Counters;
use crate::shard::worker::Context;
use bytes::Bytes;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes that count. Only the shard's own thread may have and drop them, as it does with all of a
/// connection.
struct Counted {
    bytes: Bytes,
    counters: Arc<Counters>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counters.outbound_bytes.add(0_u64.wrapping_sub(self.bytes.len() as u64));
    }
}

/// The same bytes, which count until nobody has them any more.
pub(super) fn counted(bytes: Bytes, context: &Rc<Context>) -> Bytes {
    context.with(|shard| count(bytes, Arc::clone(shard.counters())))
}

fn count(bytes: Bytes, counters: Arc<Counters>) -> Bytes {
    counters.outbound_bytes.add_len(bytes.len());
    Bytes::from_owner(Counted { bytes, counters })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_nobody_has_them() {
        let counters = Arc::<Counters>::default();
        let bytes = count(Bytes::from_static(b"hello"), Arc::clone(&counters));
        assert_eq!((&bytes[..], counters.outbound_bytes.get()), (&b"hello"[..], 5));
        let part = bytes.slice(1..2);
        drop(bytes);
        assert_eq!(counters.outbound_bytes.get(), 5, "a part keeps all of them");
        drop(part);
        assert_eq!(counters.outbound_bytes.get(), 0);
    }
}
