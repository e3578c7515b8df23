//! What one connection still has to be sent.
//! # Invariants: a frame that was begun is finished before anything else is sent; an empty queue
//! holds no memory.
//! # Not here: how much may wait, and what happens when it is too much (`delivery`).

use crate::planted::{self, Bug};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};

/// Most frames that go into one write: enough that the cost of the call no longer shows
/// (0.12 µs a frame measured against 4.7 µs for one alone), and below the kernel's bound of 1,024.
pub const WRITE_FRAMES_MAX: usize = 64;

/// Where bytes go. Never waits.
pub trait Socket {
    /// Writes what the peer takes now, like `writev`.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when it takes nothing now; anything else means that it is gone.
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Like [`Socket::write_vectored`] when only the end of the stream follows, so that both may
    /// travel together.
    ///
    /// # Errors
    /// Those of [`Socket::write_vectored`].
    fn write_last(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_vectored(slices)
    }

    /// Bytes that it took and has not given to the system.
    fn unsent(&self) -> usize {
        0
    }

    /// Gives the system what it takes now of those. Returns how many bytes that is.
    ///
    /// # Errors
    /// The peer is gone.
    fn push(&self) -> io::Result<usize> {
        Ok(0)
    }

    /// Says that nothing more will be written.
    fn shutdown(&self);

    /// Gives up what is unsent and ends both directions at once; a task that reads sees the end.
    fn abort(&self);
}

/// A socket behind whose queue the stream ends.
#[derive(Debug)]
pub(super) struct Last<'a, S>(pub(super) &'a S);

impl<S: Socket> Socket for Last<'_, S> {
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_last(slices)
    }

    fn unsent(&self) -> usize {
        self.0.unsent()
    }

    fn push(&self) -> io::Result<usize> {
        self.0.push()
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }

    fn abort(&self) {
        self.0.abort();
    }
}

/// The queue of one connection. One that is empty is a null pointer.
#[derive(Debug, Default)]
pub struct Outbound(Option<Box<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    /// Bytes in the queue.
    bytes: usize,
    /// Whether the first frame has been sent in part.
    begun: bool,
}

impl Outbound {
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// Frames that wait.
    pub fn frames(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.frames.len())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds a frame to the end.
    pub fn push(&mut self, frame: Bytes) {
        let queue = self.0.get_or_insert_default();
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
    }

    /// Adds the rest of a frame, of which `sent` bytes went out already, to an empty queue.
    pub fn push_begun(&mut self, mut frame: Bytes, sent: usize) {
        debug_assert!(self.is_empty(), "only the first frame can have been begun");
        frame.advance(sent.min(frame.len()));
        self.0.get_or_insert_default().begun = sent > 0;
        self.push(frame);
    }

    /// Adds the rest of a frame that was begun to an empty queue.
    pub fn push_rest(&mut self, rest: Bytes) {
        debug_assert!(self.is_empty(), "only the first frame can have been begun");
        self.0.get_or_insert_default().begun = true;
        self.push(rest);
    }

    /// Gives up every frame that has not been begun.
    pub fn cut(&mut self) {
        let Some(queue) = &mut self.0 else { return };
        queue.frames.truncate(usize::from(queue.begun && !planted::is(Bug::BegunFrameCut)));
        queue.bytes = queue.frames.iter().map(Bytes::len).sum();
        if queue.frames.is_empty() {
            self.0 = None;
        }
    }

    /// Writes until the queue is empty or the socket takes no more. Returns how many bytes and
    /// how many writes that was.
    ///
    /// # Errors
    /// The socket's error if the peer is gone.
    pub fn flush(&mut self, socket: &impl Socket) -> io::Result<Written> {
        let mut written = Written::default();
        let Some(queue) = &mut self.0 else { return Ok(written) };
        while !queue.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_FRAMES_MAX];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&queue.frames) {
                *slice = IoSlice::new(frame);
                count += 1;
            }
            match socket.write_vectored(slices.get(..count).unwrap_or_default()) {
                Ok(bytes) => {
                    queue.advance(bytes);
                    written.bytes += bytes;
                    written.writes += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.0 = None;
        Ok(written)
    }
}

impl Queue {
    fn advance(&mut self, mut bytes: usize) {
        self.bytes -= bytes.min(self.bytes);
        while let Some(first) = self.frames.front_mut() {
            if first.len() > bytes {
                self.begun = bytes > 0 || self.begun;
                first.advance(bytes);
                return;
            }
            bytes -= first.len();
            self.begun = false;
            self.frames.pop_front();
        }
    }
}

/// What a flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes that the socket took.
    pub bytes: usize,
    /// Calls that it took.
    pub writes: usize,
    /// Bytes that it had taken before and has given to the system.
    pub pushed: usize,
}

impl std::ops::Add for Written {
    type Output = Written;

    fn add(self, other: Written) -> Written {
        Written {
            bytes: self.bytes + other.bytes,
            writes: self.writes + other.writes,
            pushed: self.pushed + other.pushed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::{Cell, RefCell};

    /// Takes as many bytes as it was told to, then nothing.
    struct Narrow {
        room: Cell<usize>,
        taken: RefCell<Vec<u8>>,
    }

    impl Socket for Narrow {
        fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let taken = all.len().min(self.room.get());
            if taken == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room.set(self.room.get() - taken);
            self.taken.borrow_mut().extend(&all[..taken]);
            Ok(taken)
        }
        fn shutdown(&self) {}
        fn abort(&self) {}
    }

    fn narrow(room: usize) -> Narrow {
        Narrow { room: Cell::new(room), taken: RefCell::default() }
    }

    proptest! {
        #[test]
        fn bytes_leave_in_order_however_little_the_socket_takes(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..200),
            rooms in prop::collection::vec(0usize..500, 1..40),
        ) {
            let mut outbound = Outbound::default();
            let expected: Vec<u8> = frames.concat();
            for frame in frames {
                outbound.push(frame.into());
            }
            let socket = narrow(0);
            for room in rooms {
                socket.room.set(room);
                outbound.flush(&socket).expect("not gone");
                prop_assert_eq!(outbound.bytes() + socket.taken.borrow().len(), expected.len());
            }
            let taken = socket.taken.borrow();
            prop_assert_eq!(taken.as_slice(), &expected[..taken.len()]);
        }
    }

    #[test]
    fn a_cut_keeps_only_the_frame_that_was_begun() {
        let mut outbound = Outbound::default();
        outbound.push(Bytes::from_static(b"abcd"));
        outbound.push(Bytes::from_static(b"efgh"));
        outbound.flush(&narrow(2)).expect("not gone");
        outbound.cut();
        assert_eq!(outbound.bytes(), 2);
        let rest = narrow(100);
        outbound.flush(&rest).expect("not gone");
        assert_eq!(rest.taken.borrow().as_slice(), b"cd");

        outbound.push(Bytes::from_static(b"ijkl"));
        outbound.cut();
        assert!(outbound.is_empty(), "nothing of it had been sent");
    }

    #[test]
    fn the_rest_of_a_frame_counts_as_begun() {
        let mut outbound = Outbound::default();
        outbound.push_begun(Bytes::from_static(b"abcd"), 3);
        outbound.push(Bytes::from_static(b"efgh"));
        outbound.cut();
        assert_eq!(outbound.bytes(), 1);
    }

    #[test]
    fn an_empty_queue_holds_no_memory() {
        let mut outbound = Outbound::default();
        for _ in 0..1000 {
            outbound.push(Bytes::from_static(b"x"));
        }
        outbound.flush(&narrow(10_000)).expect("not gone");
        assert!(outbound.0.is_none());
    }
}
