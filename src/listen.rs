//! Listening: binds addresses, accepts connections on the thread of one shard, hands each to the next.
//! # Invariants: an accept error never spins and never ends the loop; a connection holds its place
//! in the count until its task has ended.
//! # Not here: what is spoken on a connection.

use crate::reason::Reason;
use crate::shard::pressure::{Budget, Pressure};
use crate::shard::worker::{Busy, Context, Jobs};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::future::Future;
use std::io;
use std::net::{self, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Connections that the kernel may hold for us until they are accepted.
const BACKLOG: i32 = 1024;

/// Bytes that the kernel may hold for a peer that does not read, beyond what is in flight.
const UNSENT_BYTES_MAX: u32 = 64 << 10;

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

/// How many connections there may be, and are.
#[derive(Debug)]
pub struct Places {
    max: usize,
    taken: AtomicUsize,
}

impl Places {
    /// Room for `max` connections.
    pub fn new(max: usize) -> Arc<Places> {
        Arc::new(Places { max, taken: AtomicUsize::new(0) })
    }

    /// Takes a place, or says that there is none.
    pub fn take(self: &Arc<Places>) -> Option<Place> {
        if self.taken.fetch_add(1, Ordering::AcqRel) >= self.max {
            self.taken.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Place(Arc::clone(self)))
    }
}

/// One connection's place. Dropping it frees the place.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Where connections come from and who serves them.
#[derive(Debug)]
pub struct Entrance {
    /// The shards, which take turns.
    pub shards: Vec<Jobs>,
    /// Which of their threads accepts.
    pub host: usize,
    /// How many connections there may be.
    pub places: Arc<Places>,
    /// What may wait for all connections.
    pub budget: Arc<Budget>,
    /// What a connection is told that is not taken.
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
        serve: impl Fn(Rc<Context>, TcpStream, Place) -> F + Clone + Send + 'static,
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
                    match TcpListener::from_std(listener) {
                        Ok(listener) => self.accept(&listener, &context, serve).await,
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
        &self,
        listener: &TcpListener,
        context: &Rc<Context>,
        serve: impl Fn(Rc<Context>, TcpStream, Place) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = ()> + 'static,
    {
        for (turn, shard) in self.shards.iter().enumerate().cycle() {
            let stream = next(listener).await;
            match self.place() {
                Ok(place) if turn == self.host => {
                    tokio::task::spawn_local(serve(Rc::clone(context), stream, place));
                }
                Ok(place) => {
                    if let Err(error) = hand_over(stream, place, shard, serve.clone()) {
                        tracing::debug!(%error, "a connection was lost before it was served");
                    }
                }
                Err(reason) => {
                    tracing::debug!(%reason, "a connection was refused");
                    context.with(|shard| shard.counters().refusals.of(reason).increment());
                    // Not waited for: a peer that does not take so little is not told.
                    stream.try_write(&(self.turn_away)(reason)).unwrap_or_default();
                }
            }
        }
    }

    /// A place for one more connection.
    fn place(&self) -> Result<Place, Reason> {
        if self.budget.pressure() >= Pressure::RefuseNew {
            return Err(Reason::Shed);
        }
        self.places.take().ok_or(Reason::TooManyConnections)
    }
}

fn hand_over<F>(
    stream: TcpStream,
    place: Place,
    shard: &Jobs,
    serve: impl Fn(Rc<Context>, TcpStream, Place) -> F + Send + 'static,
) -> io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    // The socket leaves this thread's event queue and enters that of the shard.
    let stream = stream.into_std()?;
    let job = move |context: &Rc<Context>| {
        if let Ok(stream) = TcpStream::from_std(stream) {
            tokio::task::spawn_local(serve(Rc::clone(context), stream, place));
        }
    };
    shard.run(job).map_err(|Busy| io::ErrorKind::ResourceBusy.into())
}

/// The next connection. Whatever goes wrong is waited out.
pub async fn next(listener: &TcpListener) -> TcpStream {
    const PAUSE_MIN: Duration = Duration::from_millis(10);
    const PAUSE_MAX: Duration = Duration::from_secs(1);
    let mut pause = PAUSE_MIN;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                #[cfg(not(target_os = "linux"))]
                prepare(&stream).unwrap_or_default();
                return stream;
            }
            Err(error) => {
                // Most likely there is no file descriptor left: accepting again at once would spin.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
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
