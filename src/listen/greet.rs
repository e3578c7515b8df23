//! What comes before a connection's own words: a PROXY header, then a TLS handshake.
//! # Invariants: each has its deadline, and all of it the deadline of the ticket; whoever fails is
//! counted by a reason and told nothing that costs more than an alert.
//! # Not here: the bytes of either (`proxy`, `tls`), the request that follows (`http`, `ingress`).

use super::gate::{Gate, Ticket};
use super::pipe::{Pipe, fill};
use super::proxy::{BODY_BYTES_MAX, HEAD_BYTES, read_head};
use crate::reason::Reason;
use crate::tls::{Channel, Credentials, Demand};
use rustls::Error;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How connections of a listener begin.
#[derive(Clone, Debug, Default)]
pub struct Greeting {
    /// Whether each begins with a PROXY header.
    pub proxy: Option<ProxyHeader>,
    /// The certificate that TLS begins with, and what is demanded of the client; `None` is plain.
    pub tls: Option<(Arc<Credentials>, Demand)>,
}

/// Each connection begins with a PROXY header of a trusted proxy, or is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader;

impl Greeting {
    /// Whether a connection begins with its own words.
    pub fn is_none(&self) -> bool {
        self.proxy.is_none() && self.tls.is_none()
    }
}

/// Goes through what comes before a connection's own words.
///
/// # Errors
/// The reason for which the connection ends.
pub(super) async fn greet(
    greeting: &Greeting,
    gate: &Gate,
    mut stream: TcpStream,
    ticket: &mut Ticket,
    now: impl Fn() -> Duration,
) -> Result<Pipe, Reason> {
    let step = || gate.options().step.min(ticket.pending.until.saturating_sub(now()));
    if greeting.proxy == Some(ProxyHeader) {
        if !gate.is_proxy(ticket.client) {
            return Err(Reason::BadProxyHeader);
        }
        let header = timeout(step(), read_proxy(&mut stream)).await;
        if let Some(client) = header.map_err(|_| Reason::TooLate)?? {
            ticket.held = gate.admit(client, now())?;
            ticket.client = client;
        }
    }
    let Some((credentials, demand)) = &greeting.tls else { return Ok(stream.into()) };
    let Some(_place) = gate.handshakes.take() else { return Err(Reason::TooManyHandshakes) };
    let shaken = timeout(step(), shake_hands(stream, credentials, *demand)).await;
    shaken.map_err(|_| Reason::TooLate)?
}

/// Reads a PROXY header and not a byte more.
async fn read_proxy(stream: &mut TcpStream) -> Result<Option<IpAddr>, Reason> {
    let mut bytes = [0; HEAD_BYTES];
    stream.read_exact(&mut bytes).await.map_err(|_| Reason::Unfinished)?;
    let head = read_head(&bytes).map_err(|error| {
        tracing::debug!(%error, "a PROXY header was refused");
        Reason::BadProxyHeader
    })?;
    let mut body = [0; BODY_BYTES_MAX];
    let body = body.get_mut(..head.body_bytes).unwrap_or_default();
    stream.read_exact(body).await.map_err(|_| Reason::Unfinished)?;
    Ok(head.client(body))
}

/// The server's side of a TLS handshake.
///
/// # Errors
/// [`Reason::Unfinished`], [`Reason::BadTls`], [`Reason::BadCertificate`].
pub async fn shake_hands(
    stream: TcpStream,
    credentials: &Credentials,
    demand: Demand,
) -> Result<Pipe, Reason> {
    let channel = Channel::new(credentials.current(demand));
    let mut channel = channel.map_err(|_| Reason::InternalError)?;
    let mut plain = Vec::new();
    loop {
        stream.readable().await.map_err(|_| Reason::Unfinished)?;
        let filled = fill(&mut channel, &stream, &mut plain);
        // An alert is among it, if what came was wrong.
        let written = drain(&stream, &mut channel).await;
        filled.map_err(|error| judge(&error))?;
        written.map_err(|_| Reason::Unfinished)?;
        if !channel.is_handshaking() {
            return Ok(Pipe::sealed(stream, channel, plain));
        }
    }
}

async fn drain(stream: &TcpStream, channel: &mut Channel) -> io::Result<()> {
    while channel.unsent() > 0 {
        stream.writable().await?;
        channel.flush(|bytes| stream.try_write(bytes))?;
    }
    Ok(())
}

/// What a handshake failed of.
fn judge(error: &io::Error) -> Reason {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return Reason::Unfinished;
    };
    tracing::debug!(%error, "a TLS handshake failed");
    match error {
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => Reason::BadCertificate,
        _ => Reason::BadTls,
    }
}
