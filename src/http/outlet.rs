//! A connection as HTTP writes to it, which can be taken away from HTTP.
//! # Invariants: whoever asks learns whether HTTP has bytes left that the peer did not take.
//! # Not here: what is said (`http`), the socket (`listen::pipe`).

use crate::listen::pipe::Pipe;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that notes whether it is full.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) pipe: Pipe,
    is_full: Rc<Cell<bool>>,
}

impl Outlet {
    /// `is_full` is set while the peer takes nothing of what is written.
    pub(super) fn new(pipe: Pipe, is_full: Rc<Cell<bool>>) -> Outlet {
        Outlet { pipe, is_full }
    }

    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.is_full.set(result.is_pending());
        result
    }
}

impl AsyncRead for Outlet {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(task, into)
    }
}

impl AsyncWrite for Outlet {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.pipe).poll_write(task, bytes);
        self.note(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.pipe).poll_flush(task);
        self.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(task)
    }
}
