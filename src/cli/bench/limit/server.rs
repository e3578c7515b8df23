//! The bare WebSocket server: topics in the path, messages by the topic number in their body.
//! # Invariants: a connection holds bytes only while a frame is cut in two, its socket is full, or,
//! where writes are joined, within one pass.
//! # Not here: whom it would refuse; it trusts its clients.

use crate::cli::bench::args::Engine;
use crate::cli::bench::frame::{self, Head, Opcode};
use crate::cli::bench::mark::Mark;
use fastwebsockets::upgrade::upgrade;
use hyper::Request;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Sockets that are looked at in one pass.
const EVENTS_MAX: usize = 1024;

/// Topics are numbered from 0 to here.
const TOPICS_MAX: usize = 1 << 20;

/// Bytes that a connection keeps room for when it has sent all.
const ROOM_BYTES_MAX: usize = 64 << 10;

const LISTENER: Token = Token(usize::MAX);

/// Serves for ever.
pub(super) fn serve(listener: std::net::TcpListener, engine: Engine) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::from_std(listener);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut server = Server {
        engine,
        peers: Slab::new(),
        by_topic: Vec::new(),
        frame: Vec::new(),
        dirty: Vec::new(),
        gone: Vec::new(),
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut events = Events::with_capacity(EVENTS_MAX);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept(&listener, poll.registry())?,
                Token(index) => server.serve(index, event, &mut buffer),
            }
        }
        server.end_pass();
    }
}

struct Server {
    engine: Engine,
    peers: Slab<Peer>,
    /// The connections of each topic.
    by_topic: Vec<Vec<usize>>,
    /// The frame that is going out.
    frame: Vec<u8>,
    /// Connections for which something waits until the end of the pass.
    dirty: Vec<usize>,
    /// Connections that failed in this pass.
    gone: Vec<usize>,
}

struct Peer {
    stream: TcpStream,
    stage: Stage,
    topics: Box<[u32]>,
    kept: Vec<u8>,
    unsent: Vec<u8>,
    is_dirty: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Upgrading,
    Open,
}

/// A connection is over.
struct Gone;

impl Server {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Whoever was about to come has gone.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let entry = self.peers.vacant_entry();
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, Token(entry.key()), both)?;
            entry.insert(Peer {
                stream,
                stage: Stage::Upgrading,
                topics: Box::default(),
                kept: Vec::new(),
                unsent: Vec::new(),
                is_dirty: false,
            });
        }
    }

    fn serve(&mut self, index: usize, event: &Event, buffer: &mut [u8]) {
        if self.serve_peer(index, event, buffer).is_err() {
            self.gone.push(index);
        }
    }

    fn serve_peer(&mut self, index: usize, event: &Event, buffer: &mut [u8]) -> Result<(), Gone> {
        let Some(peer) = self.peers.get_mut(index) else {
            return Ok(());
        };
        if event.is_writable() && !peer.is_dirty {
            peer.flush()?;
        }
        while let Some(peer) = self.peers.get_mut(index) {
            let len = match peer.stream.read(buffer) {
                Ok(0) => return Err(Gone),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Gone),
            };
            let bytes = buffer.get_mut(..len).unwrap_or_default();
            self.take(index, bytes)?;
            // The socket is empty, unless it has ended.
            if len < buffer.len() && !event.is_read_closed() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes what was read.
    fn take(&mut self, index: usize, bytes: &mut [u8]) -> Result<(), Gone> {
        let peer = self.peers.get_mut(index).ok_or(Gone)?;
        let mut kept = std::mem::take(&mut peer.kept);
        if peer.stage == Stage::Upgrading {
            kept.extend_from_slice(bytes);
            let Some(used) = self.open(index, &kept)? else {
                self.keep(index, kept);
                return Ok(());
            };
            kept.drain(..used);
            self.take_frames(index, &mut kept)?;
        } else if kept.is_empty() {
            let used = self.take_frames(index, bytes)?;
            kept.extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            kept.extend_from_slice(bytes);
            let used = self.take_frames(index, &mut kept)?;
            kept.drain(..used);
        }
        self.keep(index, kept);
        Ok(())
    }

    fn keep(&mut self, index: usize, kept: Vec<u8>) {
        if let Some(peer) = self.peers.get_mut(index)
            && !kept.is_empty()
        {
            peer.kept = kept;
        }
    }

    /// Answers an upgrade, and tells its length if it is whole.
    fn open(&mut self, index: usize, bytes: &[u8]) -> Result<Option<usize>, Gone> {
        let Some((head, len)) = frame::http_head(bytes).map_err(|_| Gone)? else {
            return Ok(None);
        };
        let answer = answer(head).ok_or(Gone)?;
        let topics = topics(head);
        for topic in &topics {
            let topic = *topic as usize;
            if self.by_topic.len() <= topic {
                self.by_topic.resize_with(topic + 1, Vec::new);
            }
            if let Some(peers) = self.by_topic.get_mut(topic) {
                peers.push(index);
            }
        }
        let peer = self.peers.get_mut(index).ok_or(Gone)?;
        peer.topics = topics.into();
        peer.stage = Stage::Open;
        peer.send(&answer)?;
        Ok(Some(len))
    }

    /// Does what whole frames say, and tells their length.
    fn take_frames(&mut self, index: usize, bytes: &mut [u8]) -> Result<usize, Gone> {
        let mut used = 0;
        while let Some(rest) = bytes.get_mut(used..)
            && let Some(head) = Head::read(rest).map_err(|_| Gone)?
            && let Some(payload) = rest.get_mut(head.len..head.frame_len())
        {
            if let Some(mask) = head.mask {
                frame::apply_mask(payload, mask);
            }
            match head.opcode {
                Opcode::Text | Opcode::Binary => self.publish(head.opcode, payload),
                Opcode::Ping => self.answer(index, Opcode::Pong, payload)?,
                Opcode::Pong => {}
                Opcode::Close => {
                    self.answer(index, Opcode::Close, payload)?;
                    return Err(Gone);
                }
            }
            used += head.frame_len();
        }
        Ok(used)
    }

    fn answer(&mut self, index: usize, opcode: Opcode, payload: &[u8]) -> Result<(), Gone> {
        let mut answer = Vec::new();
        frame::put_server(&mut answer, opcode, payload);
        self.peers.get_mut(index).ok_or(Gone)?.send(&answer)
    }

    /// Sends a message to everybody on its topic.
    fn publish(&mut self, opcode: Opcode, body: &[u8]) {
        let topic = Mark::topic_of(body).unwrap_or_default() as usize;
        self.frame.clear();
        frame::put_server(&mut self.frame, opcode, body);
        for &index in self.by_topic.get(topic).map_or(&[][..], Vec::as_slice) {
            let Some(peer) = self.peers.get_mut(index) else {
                continue;
            };
            if self.engine == Engine::Coalesce {
                peer.unsent.extend_from_slice(&self.frame);
                if !peer.is_dirty {
                    peer.is_dirty = true;
                    self.dirty.push(index);
                }
            } else if peer.send(&self.frame).is_err() {
                self.gone.push(index);
            }
        }
    }

    /// Sends what was joined, and forgets who has gone.
    fn end_pass(&mut self) {
        for index in self.dirty.drain(..) {
            let Some(peer) = self.peers.get_mut(index) else {
                continue;
            };
            peer.is_dirty = false;
            if peer.flush().is_err() {
                self.gone.push(index);
            }
        }
        while let Some(index) = self.gone.pop() {
            let Some(peer) = self.peers.try_remove(index) else {
                continue;
            };
            for topic in &peer.topics {
                if let Some(peers) = self.by_topic.get_mut(*topic as usize)
                    && let Some(place) = peers.iter().position(|other| *other == index)
                {
                    peers.swap_remove(place);
                }
            }
        }
    }
}

impl Peer {
    /// Sends at once, or behind what waits already.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let mut sent = 0;
        if self.unsent.is_empty() {
            match self.stream.write(bytes) {
                Ok(len) => sent = len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(Gone),
            }
        }
        // Most often there is nothing left.
        self.unsent.extend_from_slice(bytes.get(sent..).unwrap_or_default());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        match self.stream.write(&self.unsent) {
            Ok(len) => drop(self.unsent.drain(..len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(Gone),
        }
        if self.unsent.is_empty() && self.unsent.capacity() > ROOM_BYTES_MAX {
            self.unsent = Vec::new();
        }
        Ok(())
    }
}

/// The answer to an upgrade, if it is one.
fn answer(head: &str) -> Option<Vec<u8>> {
    let key = frame::header(head, SEC_WEBSOCKET_KEY.as_str())?;
    let mut request = Request::new(());
    request.headers_mut().insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(key).ok()?);
    request.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let (response, _) = upgrade(&mut request).ok()?;
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT)?.to_str().ok()?;
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n"
    );
    if let Some(names) = frame::header(head, "sec-websocket-protocol") {
        let first = names.split(',').next().unwrap_or_default().trim();
        answer.push_str("Sec-WebSocket-Protocol: ");
        answer.push_str(first);
        answer.push_str("\r\n");
    }
    answer.push_str("\r\n");
    Some(answer.into_bytes())
}

/// The topics that a path asks for; none if it asks for none.
fn topics(head: &str) -> Vec<u32> {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let Some((_, list)) = path.split_once("topics=") else {
        return Vec::new();
    };
    let list = list.split('&').next().unwrap_or_default().split(',');
    let topics = list.filter_map(|topic| topic.parse().ok());
    topics.filter(|topic| (*topic as usize) < TOPICS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_answered_and_asks_for_topics() {
        let request = frame::request("h", "/x?topics=3,14,no,99999999&y=1", Some("a, b"));
        let (head, len) = frame::http_head(&request).expect("text").expect("whole");
        assert_eq!(len, request.len());
        assert_eq!(topics(head), [3, 14]);
        let answer = answer(head).expect("an upgrade");
        assert_eq!(frame::accepted(&answer), Ok(Some(answer.len())));
        assert!(String::from_utf8_lossy(&answer).contains("Sec-WebSocket-Protocol: a\r\n"));
        assert_eq!(topics("GET / HTTP/1.1"), [0_u32; 0]);
    }
}
