//! What comes in on one socket goes out on another: the limit of a round trip.

use std::io::{self, Read, Write};
use std::net::TcpListener;

/// Bytes that are passed on at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Serves pairs of connections, one pair at a time: the first of a pair receives, the second sends.
pub(super) fn serve(listener: &TcpListener) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (mut receiver, _) = listener.accept()?;
        let (mut sender, _) = listener.accept()?;
        receiver.set_nodelay(true)?;
        // Until one of the two goes.
        while let Ok(len @ 1..) = sender.read(&mut buffer) {
            if receiver.write_all(buffer.get(..len).unwrap_or_default()).is_err() {
                break;
            }
        }
    }
}
