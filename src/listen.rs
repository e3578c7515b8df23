//! Listening: binds addresses, accepts connections, hands each to a shard.
//! # Invariants: an accept error never spins and never ends the loop; a connection holds its place
//! in the count until its task has ended.
//! # Not here: what is spoken on a connection.

use crate::metrics::Counters;
use crate::reason::Reason;
use crate::shard::pressure::{Budget, Pressure};
use crate::shard::worker::{Busy, Context, Jobs};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::future::Future;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

/// Connections that the kernel may hold for us until they are accepted.
const BACKLOG: i32 = 1024;

/// Bytes that the kernel may hold for a peer that does not read, beyond what is in flight.
const UNSENT_BYTES_MAX: u32 = 64 << 10;

/// Binds an address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted broker takes its address over from connections that are still closing.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if cfg!(target_os = "linux") {
        // Every connection inherits them: one call each, not one for each connection.
        prepare(&socket)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
    /// Where they come in.
    pub listener: TcpListener,
    /// The shards, which take turns.
    pub jobs: Vec<Jobs>,
    /// How many connections there may be.
    pub places: Arc<Places>,
    /// What may wait for all connections.
    pub budget: Arc<Budget>,
    /// What this thread counts.
    pub counters: Arc<Counters>,
    /// What a connection is told that is not taken.
    pub turn_away: fn(Reason) -> Vec<u8>,
}

impl Entrance {
    /// Accepts connections for ever and hands each to the next shard, where `serve` makes the task
    /// that it lives in.
    pub async fn accept<F>(
        mut self,
        context: Rc<Context>,
        serve: impl Fn(Rc<Context>, TcpStream) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = ()> + 'static,
    {
        let mut door = Door::open(self.listener.try_clone().unwrap()).unwrap();
        let shards = std::mem::take(&mut self.jobs);
        for (index, shard) in shards.iter().enumerate().cycle() {
            let stream = door.next().await;
            let place = match self.place() {
                Ok(place) => place,
                Err(reason) => {
                    tracing::debug!(%reason, "a connection was refused");
                    self.counters.refusals.of(reason).increment();
                    // Not waited for: a peer that does not take so little is not told.
                    (&stream).write(&(self.turn_away)(reason)).unwrap_or_default();
                    continue;
                }
            };
            if index == 0 {
                serve_on(&context, stream, place, serve.clone());
                continue;
            }
            if let Err(error) = hand_over(stream, place, shard, serve.clone()) {
                tracing::debug!(%error, "a connection was lost before it was served");
            }
        }
    }
}

impl Entrance {
    /// A place for one more connection.
    fn place(&self) -> Result<Place, Reason> {
        if self.budget.pressure() >= Pressure::RefuseNew {
            return Err(Reason::Shed);
        }
        self.places.take().ok_or(Reason::TooManyConnections)
    }
}

fn hand_over<F>(
    stream: StdStream,
    place: Place,
    shard: &Jobs,
    serve: impl Fn(Rc<Context>, TcpStream) -> F + Send + 'static,
) -> io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    let job = move |context: &Rc<Context>| serve_on(context, stream, place, serve);
    shard.run(job).map_err(|Busy| io::ErrorKind::ResourceBusy.into())
}

fn serve_on<F>(
    context: &Rc<Context>,
    stream: StdStream,
    place: Place,
    serve: impl Fn(Rc<Context>, TcpStream) -> F + 'static,
) where
    F: Future<Output = ()> + 'static,
{
    let context = Rc::clone(context);
    tokio::task::spawn_local(async move {
        if let Ok(stream) = TcpStream::from_std(stream) {
            serve(context, stream).await;
        }
        drop(place);
    });
}

/// A listener in the event queue of this thread, whose connections are in none yet.
#[derive(Debug)]
pub struct Door {
    listener: AsyncFd<TcpListener>,
    /// Connections accepted since others had their turn.
    run: usize,
}

/// Connections accepted in a row before others have their turn.
const RUN_MAX: usize = 32;

impl Door {
    /// Binds an address.
    ///
    /// # Errors
    /// The system's, for instance when the address is taken.
    pub fn open(listener: TcpListener) -> io::Result<Door> {
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
        Ok(Door { listener, run: 0 })
    }

    /// The bound address.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.get_ref().local_addr()
    }

    /// The next connection. Whatever goes wrong is waited out.
    pub async fn next(&mut self) -> StdStream {
        const PAUSE_MIN: Duration = Duration::from_millis(10);
        const PAUSE_MAX: Duration = Duration::from_secs(1);
        let mut pause = PAUSE_MIN;
        loop {
            if self.run >= RUN_MAX {
                self.run = 0;
                tokio::task::yield_now().await;
            }
            match self.try_next().await {
                Ok(Some(stream)) => {
                    self.run += 1;
                    return stream;
                }
                Ok(None) => self.run = 0,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => self.run += 1,
                Err(error) => {
                    // Most likely there is no file descriptor left: accepting again at once would spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn try_next(&self) -> io::Result<Option<StdStream>> {
        let mut ready = self.listener.readable().await?;
        ready.try_io(|listener| accept(listener.get_ref())).ok().transpose()
    }
}

/// Accepts a connection that does not block, in one call where the system has one.
#[cfg(target_os = "linux")]
fn accept(listener: &TcpListener) -> io::Result<StdStream> {
    use rustix::net::{SocketFlags, accept_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(accept_with(listener, flags)?.into())
}

#[cfg(not(target_os = "linux"))]
fn accept(listener: &TcpListener) -> io::Result<StdStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    prepare(&stream)?;
    Ok(stream)
}

/// What the kernel shall do for a connection.
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
