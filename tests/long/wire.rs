//! A connection of a client, as bytes: how it begins on each wire, and how what it sends is framed.
//! # Not here: what is said on it (`tests/sim/spelling`), who says it.

use fanfare::topics::message::Wire;
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What clients begin with.
pub(crate) const WIRES: [Wire; 3] = [Wire::WebSocketJson, Wire::WebSocketProto, Wire::TcpProto];

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PONG: u8 = 0x8A;

const DEADLINE: Duration = Duration::from_secs(30);

/// How much a kernel holds for a client that may read slowly.
const NARROW_BYTES: usize = 4096;

/// Where a broker listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    pub(crate) public: SocketAddr,
    pub(crate) ingress: SocketAddr,
}

/// How much the kernel may hold for the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Narrow,
    Wide,
}

/// Opens a connection on which commands may be sent; its reads and writes wait for `DEADLINE`.
pub(crate) fn open(door: Door, wire: Wire, width: Width) -> io::Result<TcpStream> {
    let address = if wire == Wire::TcpProto { door.ingress } else { door.public };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if width == Width::Narrow {
        socket.set_recv_buffer_size(NARROW_BYTES)?;
    }
    socket.connect_timeout(&address.into(), DEADLINE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    if wire != Wire::TcpProto {
        stream.write_all(request(address, wire, "").as_bytes())?;
        let head = head(&mut stream)?;
        if !head.starts_with("HTTP/1.1 101") {
            return Err(io::Error::other(head));
        }
    }
    Ok(stream)
}

/// The head of a request for a WebSocket, with more headers.
pub(crate) fn request(address: SocketAddr, wire: Wire, headers: &str) -> String {
    let protocol = if wire.is_json() { "fanfare.v1.json" } else { "fanfare.v1.proto" };
    format!(
        "GET /ws HTTP/1.1\r\nhost: {address}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: {protocol}\r\n{headers}\r\n"
    )
}

/// The head of an answer, and not a byte of what follows.
fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A command as it is sent.
pub(crate) fn framed(command: &[u8], wire: Wire) -> Vec<u8> {
    match wire {
        Wire::TcpProto => {
            let len = u32::try_from(command.len()).expect("a small command");
            [&len.to_be_bytes(), command].concat()
        }
        wire if wire.is_json() => frame(TEXT, command),
        _ => frame(BINARY, command),
    }
}

/// A frame of a WebSocket, its mask zero: what hides nothing is as good as any other.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASKED: u8 = 0x80;
    const LENGTH_16: u8 = 0x7E;
    let mut frame = vec![opcode];
    match payload.len() {
        short @ 0..126 => frame.push(MASKED | u8::try_from(short).expect("short")),
        long => {
            frame.push(MASKED | LENGTH_16);
            frame.extend(u16::try_from(long).expect("a small command").to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Ends a connection as a peer whose machine crashed: by a reset.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("no lingering");
    drop(stream);
}
