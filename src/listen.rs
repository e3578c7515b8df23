//! Listening: binds addresses, accepts connections on the thread of one shard, hands each to the next.
//! # Invariants: an accept error never spins and never ends the loop; a connection holds its place
//! in the count until its task has ended, and another one until it has said what it wants.
//! # Not here: who is let in (`gate`), what comes first (`greet`), what is spoken on a connection.

pub mod gate;
mod greet;
pub mod hops;
pub mod pipe;
pub mod proxy;
pub mod rate;

pub use gate::{Gate, Place, Places, Ticket};
pub use greet::{Greeting, ProxyHeader, shake_hands};

use crate::limits::rate::Spent;
use crate::reason::Reason;
use crate::shard::worker::{Busy, Context, Jobs};
use greet::greet;
use pipe::Pipe;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{self, IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Connections that the kernel may hold for us until they are accepted.
const BACKLOG: i32 = 1024;

/// Bytes that the kernel may hold for a peer that does not read, beyond what is in flight.
const UNSENT_BYTES_MAX: u32 = 64 << 10;

/// Least time that a listener waits which accepts more often than it may.
const PACE_MIN: Duration = Duration::from_millis(5);

/// Binds an address.
///
/// # Errors
/// The system's, for instance when the address is taken.
pub fn bind(address: SocketAddr) -> io::Result<net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted broker takes its address over from connections that are still closing.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    #[cfg(target_os = "linux")]
    prepare(&socket)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Makes a socket that somebody else has bound like one of ours.
///
/// # Errors
/// The system's.
pub fn adopt(listener: net::TcpListener) -> io::Result<net::TcpListener> {
    listener.set_nonblocking(true)?;
    #[cfg(target_os = "linux")]
    prepare(&listener)?;
    Ok(listener)
}

/// What the kernel is to do for a connection. On Linux connections inherit it from their listener.
fn prepare<'a>(socket: impl Into<SockRef<'a>>) -> io::Result<()> {
    let socket = socket.into();
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_mins(1))
        .with_interval(Duration::from_secs(10));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    }
    Ok(())
}

/// A connection that has come through the gate and has not said anything yet.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub pipe: Pipe,
    /// The address at its other end: a proxy's, perhaps.
    pub peer: IpAddr,
    /// What it was given.
    pub ticket: Ticket,
}

/// Where connections come from and who serves them.
#[derive(Debug)]
pub struct Entrance {
    /// The shards, which take turns.
    pub shards: Vec<Jobs>,
    /// Which of their threads accepts.
    pub host: usize,
    /// Who is let in.
    pub gate: Arc<Gate>,
    /// How connections begin.
    pub greeting: Greeting,
    /// What a connection is told that is not taken, where it can be told before anything else.
    pub turn_away: fn(Reason) -> Vec<u8>,
}

/// An entrance at which connections are accepted. Dropping it closes it, soon.
#[derive(Debug)]
pub struct Open {
    end: oneshot::Sender<()>,
    closed: oneshot::Receiver<()>,
}

impl Open {
    /// Closes it. Afterwards nobody listens any more.
    pub async fn close(self) {
        drop(self.end);
        // Never sent: that the sender is gone is the message.
        self.closed.await.unwrap_or_default();
    }
}

impl Entrance {
    /// Begins to accept connections. Each is handed to the next shard, where `serve` makes the task
    /// that it lives in.
    ///
    /// # Errors
    /// [`Busy`] when there is no shard that could do it.
    pub fn open<F>(
        self,
        listener: net::TcpListener,
        serve: impl Fn(Rc<Context>, Arrival) -> F + Clone + Send + 'static,
    ) -> Result<Open, Busy>
    where
        F: Future<Output = ()> + 'static,
    {
        let (end, ending) = oneshot::channel::<()>();
        let (closing, closed) = oneshot::channel::<()>();
        let host = self.shards.get(self.host).cloned().ok_or(Busy)?;
        host.run(move |context| {
            let context = Rc::clone(context);
            tokio::task::spawn_local(async move {
                let accepting = async move {
                    match Doorway::new(listener) {
                        Ok(doorway) => self.accept(doorway, &context, serve).await,
                        Err(error) => tracing::error!(%error, "no connection can be accepted"),
                    }
                };
                tokio::select! {
                    () = accepting => {}
                    _ = ending => {}
                }
                drop(closing);
            });
        })?;
        Ok(Open { end, closed })
    }

    /// Accepts connections for ever. One that stays on this thread costs no wake-up of another one
    /// and enters its event queue once.
    async fn accept<F>(
        self,
        mut doorway: Doorway,
        context: &Rc<Context>,
        serve: impl Fn(Rc<Context>, Arrival) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = ()> + 'static,
    {
        let (shards, host) = (self.shards.clone(), self.host);
        let entrance = Arc::new(self);
        let mut spent = Spent::default();
        for (turn, shard) in shards.iter().enumerate().cycle() {
            entrance.keep_pace(&mut spent, context).await;
            let refuse = |stream: &TcpStream, reason| entrance.refuse(context, stream, reason);
            let (stream, peer) = doorway.next(refuse).await;
            match entrance.gate.enter(peer, context.now().uptime) {
                Ok(ticket) if turn == host => {
                    entrance.receive(Rc::clone(context), stream, ticket, serve.clone());
                }
                Ok(ticket) => {
                    let entrance = Arc::clone(&entrance);
                    let handed = hand_over(stream, ticket, shard, entrance, serve.clone());
                    if let Err(error) = handed {
                        tracing::debug!(%error, "a connection was lost before it was served");
                    }
                }
                Err(reason) => refuse(&stream, reason),
            }
        }
    }

    /// Waits until one more may be accepted. Until then the system keeps those who come, and in the
    /// end lets them try again.
    async fn keep_pace(&self, spent: &mut Spent, context: &Rc<Context>) {
        let rate = self.gate.options().accept_rate;
        let mut is_delayed = false;
        while let Err(wait) = spent.take(rate, context.now().uptime) {
            if !std::mem::replace(&mut is_delayed, true) {
                context.with(|shard| shard.counters().accepts_delayed.increment());
            }
            // Several together: to wake for each costs more than to accept it.
            tokio::time::sleep(wait.max(PACE_MIN)).await;
        }
    }

    /// Counts a connection that is not served, and tells it where that is possible.
    fn refuse(&self, context: &Rc<Context>, stream: &TcpStream, reason: Reason) {
        count_refusal(context, reason);
        if self.greeting.tls.is_none() {
            context.with(|shard| shard.counters().refusals.of(reason).increment());
            // Not waited for: a peer that does not take so little is not told.
            stream.try_write(&(self.turn_away)(reason)).unwrap_or_default();
        }
    }

    /// Begins to serve a connection, after what has to come before it.
    fn receive<F>(
        self: &Arc<Entrance>,
        context: Rc<Context>,
        stream: TcpStream,
        mut ticket: Ticket,
        serve: impl Fn(Rc<Context>, Arrival) -> F + 'static,
    ) where
        F: Future<Output = ()> + 'static,
    {
        let peer = ticket.client;
        if self.greeting.is_none() {
            let arrival = Arrival { pipe: stream.into(), peer, ticket };
            tokio::task::spawn_local(serve(context, arrival));
            return;
        }
        let entrance = Arc::clone(self);
        tokio::task::spawn_local(async move {
            let now = || context.now().uptime;
            let Entrance { greeting, gate, .. } = &*entrance;
            match greet(greeting, gate, stream, &mut ticket, now).await {
                Ok(pipe) => {
                    if greeting.tls.is_some() {
                        context.with(|shard| shard.counters().tls_handshakes.increment());
                    }
                    let arrival = Arrival { pipe, peer, ticket };
                    // A task of its own, so that the memory of this one is gone.
                    tokio::task::spawn_local(serve(Rc::clone(&context), arrival));
                }
                Err(reason) => count_refusal(&context, reason),
            }
        });
    }
}

/// Counts a connection that ended before it had sent its whole first request.
pub fn count_refusal(context: &Rc<Context>, reason: Reason) {
    tracing::debug!(%reason, "a connection was refused");
    context.with(|shard| shard.counters().arrivals_refused.of(reason).increment());
}

fn hand_over<F>(
    stream: TcpStream,
    ticket: Ticket,
    shard: &Jobs,
    entrance: Arc<Entrance>,
    serve: impl Fn(Rc<Context>, Arrival) -> F + Send + 'static,
) -> io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    // The socket leaves this thread's event queue and enters that of the shard.
    let stream = stream.into_std()?;
    let job = move |context: &Rc<Context>| {
        if let Ok(stream) = TcpStream::from_std(stream) {
            entrance.receive(Rc::clone(context), stream, ticket, serve);
        }
    };
    shard.run(job).map_err(|Busy| io::ErrorKind::ResourceBusy.into())
}

/// A listener, and a file that is given up to tell those who come when there is none left.
#[derive(Debug)]
pub struct Doorway {
    listener: TcpListener,
    reserve: Option<File>,
    pause: Duration,
}

/// Those who are told at once that no file is left, before others have their turn.
const TOLD_MAX: usize = 64;
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Doorway {
    /// A listener that this thread's runtime asks.
    ///
    /// # Errors
    /// The system's.
    pub fn new(listener: net::TcpListener) -> io::Result<Doorway> {
        let listener = TcpListener::from_std(listener)?;
        Ok(Doorway { listener, reserve: reserve(), pause: PAUSE_MIN })
    }

    /// The next connection and who it is. Whatever goes wrong is waited out; those who come when no
    /// file is left are given to `refuse`.
    pub async fn next(&mut self, refuse: impl Fn(&TcpStream, Reason)) -> (TcpStream, IpAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    #[cfg(not(target_os = "linux"))]
                    prepare(&stream).unwrap_or_default();
                    self.pause = PAUSE_MIN;
                    return (stream, peer.ip().to_canonical());
                }
                Err(error) => {
                    // Accepting again at once would spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    if is_out_of_files(&error) {
                        self.turn_away(&refuse).await;
                    }
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Tells those who wait that there is no file for them.
    async fn turn_away(&mut self, refuse: &impl Fn(&TcpStream, Reason)) {
        for _ in 0..TOLD_MAX {
            self.reserve = None;
            let waiting = poll_fn(|task| Poll::Ready(self.listener.poll_accept(task))).await;
            let Poll::Ready(Ok((stream, _))) = waiting else { break };
            refuse(&stream, Reason::NoFiles);
        }
        self.reserve = reserve();
    }
}

/// A file that can be given up.
fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_out_of_files(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_connection_inherits_what_its_listener_was_told() {
        let listener = bind((net::Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let address = listener.local_addr().expect("an address");
        let _client = net::TcpStream::connect(address).expect("a connection");
        listener.set_nonblocking(false).expect("blocking");
        let (accepted, _) = listener.accept().expect("a connection");
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().expect("an option"));
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), Duration::from_mins(1));
        assert_eq!(socket.tcp_keepalive_interval().expect("an option"), Duration::from_secs(10));
        let user_timeout = socket.tcp_user_timeout().expect("an option");
        assert_eq!(user_timeout, Some(Duration::from_secs(30)));
        assert_eq!(socket.tcp_notsent_lowat().expect("an option"), UNSENT_BYTES_MAX);
    }
}
