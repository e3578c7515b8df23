//! A shard's thread: runs its turns, and whatever is handed to it.
//! # Invariants: the shard is borrowed only between two awaits; the thread never blocks.
//! # Not here: what the handed work does (`http`, `ws`, `ingress`).

use super::conduit::Conduit;
use super::farewell::told;
use super::liveness::TICK;
use super::pressure::Budget;
use super::{ConnectionId, Farewell, Progress, Shard, ShardOptions};
use crate::auth::Guard;
use crate::clock::{Clock, Now};
use crate::limits::accounts::Accounts;
use crate::metrics::Counters;
use crate::topics::mailbox::{Mailbox, MailboxOptions};
use crate::topics::registry::Registry;
use crate::topics::topic::ShardId;
use std::cell::{RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;

/// Bytes read from a socket at once. One buffer serves all connections of a shard.
pub(super) const READ_BUFFER_BYTES: usize = 256 << 10;

/// Connections that may be on their way to a shard.
const JOBS_MAX: usize = 1024;

/// The shard of this thread, as the tasks on the thread see it.
#[derive(Debug)]
pub struct Context {
    shard: RefCell<Shard<Rc<Conduit>>>,
    read_buffer: RefCell<Box<[u8]>>,
    /// What TLS makes of it.
    plain_buffer: RefCell<Vec<u8>>,
    accounts: RefCell<Accounts>,
    clock: Clock,
    wake: Arc<Notify>,
    beats: Beats,
}

/// Counts how often a shard came round in its loop: at least once a [`TICK`], however idle it is,
/// and after every slice of deliveries, however busy.
#[derive(Clone, Debug, Default)]
pub struct Beats(Arc<AtomicU64>);

impl Beats {
    /// Shows life.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Context {
    /// Runs `act` with the shard, and sees to what it left to do.
    pub fn with<T>(self: &Rc<Context>, act: impl FnOnce(&mut Shard<Rc<Conduit>>) -> T) -> T {
        let mut shard = self.shard.borrow_mut();
        shard.set_now(self.clock.now());
        let result = act(&mut shard);
        for id in shard.take_newly_blocked() {
            tokio::task::spawn_local(pump(Rc::clone(self), id));
        }
        if shard.has_work() || shard.take_rescheduled() {
            self.wake.notify_one();
        }
        result
    }

    /// Reads what has arrived into the shard's buffer and lends it to `act`. `None` when nothing
    /// has arrived after all.
    ///
    /// # Errors
    /// The socket's error, or [`io::ErrorKind::UnexpectedEof`] at its end.
    pub fn read<T>(
        &self,
        conduit: &Conduit,
        act: impl FnOnce(&mut [u8]) -> T,
    ) -> io::Result<Option<T>> {
        conduit.read(&mut self.read_buffer.borrow_mut(), &self.plain_buffer, act)
    }

    /// What those have used up who come with single requests. Not to be held over an await.
    pub fn accounts(&self) -> RefMut<'_, Accounts> {
        self.accounts.borrow_mut()
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Waits until the clock shows this time; for ever if there is none.
    async fn until(&self, due: Option<Duration>) {
        match due {
            Some(due) => tokio::time::sleep(due.saturating_sub(self.now().uptime)).await,
            None => std::future::pending().await,
        }
    }
}

/// Sends what waits for a connection whenever its socket takes more. Lives only while it is full.
async fn pump(context: Rc<Context>, id: ConnectionId) {
    let Some(socket) = context.shard.borrow().socket(id).cloned() else { return };
    while socket.stream().writable().await.is_ok() {
        let blocked = context.with(|shard| {
            shard.flush(id);
            shard.is_blocked(id)
        });
        if !blocked {
            return;
        }
    }
}

/// Delivers whatever is posted, for ever.
async fn deliver(context: Rc<Context>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        context.beats.beat();
        let due = context.with(|shard| shard.next_due());
        tokio::select! {
            () = context.wake.notified() => {}
            _ = ticks.tick() => context.with(Shard::tick),
            () = context.until(due) => {}
        }
        while context.with(Shard::turn) == Progress::More {
            // Others have their turn between two slices.
            context.beats.beat();
            tokio::task::yield_now().await;
        }
    }
}

/// Work for a shard's thread, which may leave tasks running on it.
type Job = Box<dyn FnOnce(&Rc<Context>) + Send>;

/// What a shard is made of before its thread starts: the registry needs the mailboxes, and the
/// shards need the registry.
#[derive(Debug)]
pub struct Seed {
    id: ShardId,
    wake: Arc<Notify>,
    guard: Arc<Guard>,
    /// Where the registry posts.
    pub mailbox: Arc<Mailbox>,
    /// What the shard counts.
    pub counters: Arc<Counters>,
}

impl Seed {
    /// A shard to be.
    pub fn new(id: ShardId, options: MailboxOptions, guard: Arc<Guard>) -> Seed {
        let wake = Arc::new(Notify::new());
        let waker = Arc::clone(&wake);
        let mailbox = Arc::new(Mailbox::new(options, move || waker.notify_one()));
        Seed { id, wake, guard, mailbox, counters: Arc::default() }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The system's when it gives no thread or no event queue.
    pub fn start(
        self,
        registry: Arc<Registry>,
        options: ShardOptions,
        budget: Arc<Budget>,
        clock: Clock,
    ) -> io::Result<ShardHandle> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (jobs, inbox) = mpsc::channel(JOBS_MAX);
        let beats = Beats::default();
        let life = beats.clone();
        let name = format!("fanfare-shard-{}", self.id.index());
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let mut shard = Shard::new(self.id, registry, options, self.counters, budget);
            shard.follow(self.guard);
            let context = Rc::new(Context {
                shard: RefCell::new(shard),
                read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice()),
                plain_buffer: RefCell::default(),
                accounts: RefCell::default(),
                clock,
                wake: self.wake,
                beats,
            });
            LocalSet::new().block_on(&runtime, work(context, inbox));
        })?;
        Ok(ShardHandle { jobs, beats: life, thread: Some(thread) })
    }
}

async fn work(context: Rc<Context>, mut jobs: mpsc::Receiver<Job>) {
    let mut delivering = tokio::task::spawn_local(deliver(Rc::clone(&context)));
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => job(&context),
                None => return,
            },
            ended = &mut delivering => {
                // It never returns, so it panicked. A shard that delivers nothing would be a
                // silent gap for everybody on it.
                tracing::error!(?ended, "a shard has stopped delivering");
                std::process::abort();
            }
        }
    }
}

/// A running shard. Dropping it ends the thread.
#[derive(Debug)]
pub struct ShardHandle {
    jobs: mpsc::Sender<Job>,
    beats: Beats,
    thread: Option<JoinHandle<()>>,
}

/// The shard has no room for more work, or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard has no room for more work")]
pub struct Busy;

/// Where a shard's work is handed in.
#[derive(Clone, Debug)]
pub struct Jobs(mpsc::WeakSender<Job>);

impl Jobs {
    /// Hands work to the shard's thread.
    ///
    /// # Errors
    /// [`Busy`]; the work is dropped.
    pub fn run(&self, job: impl FnOnce(&Rc<Context>) + Send + 'static) -> Result<(), Busy> {
        let jobs = self.0.upgrade().ok_or(Busy)?;
        jobs.try_send(Box::new(job)).map_err(|_| Busy)
    }
}

impl ShardHandle {
    /// Where its work is handed in.
    pub fn jobs(&self) -> Jobs {
        Jobs(self.jobs.downgrade())
    }

    /// Its signs of life.
    pub fn beats(&self) -> Beats {
        self.beats.clone()
    }

    /// Has the shard do something, and does not wait until it is done. A shard that takes nothing for
    /// a [`TICK`] is not told.
    pub async fn tell(&self, act: impl FnOnce(&mut Shard<Rc<Conduit>>) + Send + 'static) {
        let job: Job = Box::new(move |context| context.with(act));
        if tokio::time::timeout(TICK, self.jobs.send(job)).await.is_err() {
            tracing::error!("a shard takes no work");
        }
    }

    /// Tells every connection to go and waits until they have ended, at most for the spread and the
    /// grace of `farewell`. Returns how many are left.
    pub async fn drain(&self, farewell: Farewell) -> usize {
        let (done, waiting) = tokio::sync::oneshot::channel();
        let patience = farewell.spread + farewell.grace + 2 * TICK;
        let job: Job = Box::new(move |context| {
            tokio::task::spawn_local(drain(Rc::clone(context), farewell, done));
        });
        if self.jobs.send(job).await.is_err() {
            return 0;
        }
        // A thread that does not even answer has not let go of anybody.
        let answer = tokio::time::timeout(patience, waiting).await;
        answer.map_or(usize::MAX, Result::unwrap_or_default)
    }
}

async fn drain(
    context: Rc<Context>,
    farewell: Farewell,
    done: tokio::sync::oneshot::Sender<usize>,
) {
    const STEP: Duration = Duration::from_millis(10);
    let begin = context.now().uptime;
    let ids = context.with(|shard| shard.ids());
    let span = farewell.span(ids.len());
    let mut already = 0;
    loop {
        let elapsed = context.now().uptime.saturating_sub(begin);
        let now = told(ids.len(), elapsed, span);
        let left = context.with(|shard| {
            if now < ids.len() {
                shard.dismiss(ids.get(already..now).unwrap_or_default(), &farewell);
            } else {
                // Whoever came meanwhile is among them.
                let all = shard.ids();
                shard.dismiss(&all, &farewell);
            }
            shard.connection_count()
        });
        already = now;
        if left == 0 || elapsed >= span + farewell.grace {
            // Nobody waits for the answer when the server gave up first.
            done.send(left).ok();
            return;
        }
        tokio::time::sleep(STEP).await;
    }
}

impl Drop for ShardHandle {
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.jobs = closed;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a shard's thread panicked");
        }
    }
}
