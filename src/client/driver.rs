//! The task of a client: connects, moves commands and events, and waits.
//! Owns what the task and the application share.
//! # Invariants: it decides nothing that the pilot could; the lock is never held while waiting; the
//! socket is not read while the application leaves what is there.
//! # Not here: when to connect, what to send, what an event means (`pilot`).

use super::error::Error;
use super::pilot::{Order, Pilot, Settings, State};
use super::token::Source;
use super::wire::{Connection, Dial, Fault, Receiver, Sender};
use crate::clock::{Clock, Now};
use crate::dialect::Token;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Time for the reason of a lost connection to be read. If there is one it has arrived already.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);
/// The least time between two connections. A timer's wait lets all other tasks have their turn.
const PAUSE: Duration = Duration::from_millis(1);
/// Time for the server to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the task and the application share.
pub(super) struct Shared {
    pilot: Mutex<Pilot>,
    clock: Clock,
    /// Wakes the task: the application has asked for something, or taken something.
    changed: watch::Sender<()>,
    states: watch::Sender<State>,
    ended: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(settings: Settings) -> Shared {
        let clock = Clock::start();
        let pilot = Pilot::new(settings, clock.now());
        Shared {
            states: watch::Sender::new(pilot.state().clone()),
            pilot: Mutex::new(pilot),
            clock,
            changed: watch::Sender::new(()),
            ended: watch::Sender::new(false),
        }
    }

    /// Lets the pilot do something, and tells of the state that follows.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut Pilot, Now) -> T) -> T {
        let mut pilot = self.pilot.lock();
        let result = act(&mut pilot, self.clock.now());
        self.states.send_if_modified(|state| {
            let is_other = state != pilot.state();
            if is_other {
                state.clone_from(pilot.state());
            }
            is_other
        });
        result
    }

    /// Lets the application do something that the task must hear of.
    pub(super) fn ask<T>(&self, act: impl FnOnce(&mut Pilot, Now) -> T) -> T {
        let result = self.act(act);
        self.wake();
        result
    }

    pub(super) fn wake(&self) {
        self.changed.send_replace(());
    }

    pub(super) fn states(&self) -> watch::Receiver<State> {
        self.states.subscribe()
    }

    /// Waits until the task is over.
    pub(super) async fn ended(&self) {
        // It cannot fail while `self` is there.
        self.ended.subscribe().wait_for(|ended| *ended).await.map(drop).unwrap_or_default();
    }

    fn is_closed(&self) -> bool {
        matches!(*self.states.borrow(), State::Closed { .. })
    }

    /// Waits until the application has closed the client.
    async fn closed(&self) {
        let mut changed = self.changed.subscribe();
        while !self.is_closed() {
            changed.changed().await.unwrap_or_default();
        }
    }
}

/// Runs a client until it is closed.
pub(super) async fn drive(shared: Arc<Shared>, dial: Dial, source: Source) {
    let mut changed = shared.changed.subscribe();
    loop {
        changed.borrow_and_update();
        match shared.act(Pilot::order) {
            Order::Stop => break,
            Order::Wait(delay) => tokio::select! {
                () = sleep(delay) => {}
                woken = changed.changed() => woken.unwrap_or_default(),
            },
            Order::Dial | Order::Serve => tokio::select! {
                // Even where the next one follows at once, whoever follows the states sees this one end.
                () = Box::pin(attempt(&shared, &dial, &source)) => sleep(PAUSE).await,
                // A connection that is there is closed by who serves it.
                () = abandoned(&shared) => {}
            },
        }
    }
    shared.ended.send_replace(true);
}

/// Waits until the client is closed while no connection is there that could end well.
async fn abandoned(shared: &Shared) {
    shared.closed().await;
    sleep(CLOSE_TIMEOUT + REASON_TIMEOUT).await;
}

/// One connection, from the token to its end.
async fn attempt(shared: &Shared, dial: &Dial, source: &Source) {
    let connecting = async {
        let token = source.token(dial.patience()).await?;
        Ok((dial.open(token.as_ref()).await?, token))
    };
    let opened: Result<(Connection, Option<Token>), Fault> = tokio::select! {
        opened = connecting => opened,
        () = shared.closed() => return,
    };
    match opened {
        Ok((connection, token)) => {
            let token = token.filter(|_| dial.greets_with_token());
            shared.act(|pilot, now| pilot.opened(now, token.as_ref().map(Token::reveal)));
            serve(shared, connection, (source, dial.patience())).await;
        }
        Err(fault) => shared.act(|pilot, now| pilot.lost(now, fault)),
    }
}

async fn serve(shared: &Shared, connection: Connection, source: (&Source, Duration)) {
    let Connection { mut sender, mut receiver } = connection;
    let fault = {
        let mut reading = std::pin::pin!(read(shared, &mut receiver));
        tokio::select! {
            fault = &mut reading => Some(fault),
            // A server that refuses a command closes the connection while the rest of it is still being
            // written, and its reason waits to be read.
            fault = write(shared, &mut sender) => {
                Some(timeout(REASON_TIMEOUT, reading).await.unwrap_or(fault))
            }
            fault = keep_time(shared, source) => fault,
        }
    };
    if let Some(fault) = fault {
        return shared.act(|pilot, now| pilot.lost(now, fault));
    }
    let goodbye = async {
        sender.close().await;
        while receiver.next().await.is_ok() {}
    };
    timeout(CLOSE_TIMEOUT, goodbye).await.unwrap_or_default();
}

/// Sends what there is to send, until that fails.
async fn write(shared: &Shared, sender: &mut Sender) -> Fault {
    let mut changed = shared.changed.subscribe();
    loop {
        changed.borrow_and_update();
        while let Some(command) = shared.act(|pilot, _| pilot.next_command()) {
            if let Err(fault) = sender.send(command).await {
                return fault;
            }
        }
        changed.changed().await.unwrap_or_default();
    }
}

/// Hears what comes, as long as there is room for it, until the connection ends.
async fn read(shared: &Shared, receiver: &mut Receiver) -> Fault {
    let mut changed = shared.changed.subscribe();
    loop {
        changed.borrow_and_update();
        if !shared.act(|pilot, _| pilot.may_read()) {
            changed.changed().await.unwrap_or_default();
            continue;
        }
        let events = match receiver.next().await {
            Ok(events) => events,
            Err(fault) => return fault,
        };
        let heard = shared.act(|pilot, now| {
            let heard = events.into_iter().try_for_each(|event| pilot.heard(now, event));
            heard.map(|()| pilot.has_commands())
        });
        match heard {
            Ok(true) => shared.wake(),
            Ok(false) => {}
            Err(fault) => return fault,
        }
    }
}

/// Sees to what is due. Ends with a fault if the connection is to be given up, and without one if the
/// application has closed the client.
async fn keep_time(shared: &Shared, (source, patience): (&Source, Duration)) -> Option<Fault> {
    let mut changed = shared.changed.subscribe();
    loop {
        changed.borrow_and_update();
        if shared.is_closed() {
            return None;
        }
        let (deadline, refresh_at, now) =
            shared.act(|pilot, now| (pilot.deadline(), pilot.refresh_at(), now.uptime));
        if refresh_at.is_some_and(|at| at <= now) {
            let token = tokio::select! {
                token = source.token(patience) => token.ok().flatten(),
                () = shared.closed() => return None,
            };
            shared.ask(|pilot, now| pilot.refresh(now, token.as_ref().map(Token::reveal)));
            continue;
        }
        let next = refresh_at.map_or(deadline, |at| at.min(deadline));
        if next > now {
            tokio::select! {
                () = sleep(next.saturating_sub(now)) => {}
                woken = changed.changed() => woken.unwrap_or_default(),
            }
            continue;
        }
        if let Err(fault) = shared.ask(Pilot::tick) {
            return Some(fault);
        }
    }
}

/// The error of a task that cannot be started.
pub(super) fn no_runtime() -> Error {
    Fault::Setup("there is no Tokio runtime here to run the client on".to_owned()).into()
}
