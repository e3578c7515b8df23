//! Who is let in: places for connections, for those that have not said what they want yet and for
//! handshakes under way, and what one address may have.
//! # Invariants: whoever was counted is counted no longer when what was given to it is dropped; an
//! address that is refused costs no place.
//! # Not here: accepting (`listen`), what the numbers are (`config`).

use super::hops::{Network, is_trusted};
use super::rate::{Addresses, Origin};
use crate::limits::rate::Rate;
use crate::metrics::Waiting;
use crate::reason::Reason;
use crate::shard::pressure::{Budget, Pressure};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many of something there may be, and are.
#[derive(Debug)]
pub struct Places {
    max: AtomicUsize,
    taken: Arc<AtomicUsize>,
}

impl Places {
    /// Room for `max`.
    pub fn new(max: usize) -> Arc<Places> {
        Places::counting(max, Arc::default())
    }

    /// Room for `max`, and where others see how many are taken.
    pub fn counting(max: usize, taken: Arc<AtomicUsize>) -> Arc<Places> {
        Arc::new(Places { max: AtomicUsize::new(max), taken })
    }

    /// Makes room for so many. Those who are there stay, however many they are.
    pub fn resize(&self, max: usize) {
        self.max.store(max, Ordering::Release);
    }

    /// Takes a place, or says that there is none.
    pub fn take(self: &Arc<Places>) -> Option<Place> {
        if self.taken.fetch_add(1, Ordering::AcqRel) >= self.max.load(Ordering::Acquire) {
            self.taken.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Place(Arc::clone(self)))
    }
}

/// A place. Dropping it frees it.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What connections may cost before they are connections, and how many there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateOptions {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once that have not sent their whole first request.
    pub pending_max: usize,
    /// TLS handshakes at once.
    pub handshakes_max: usize,
    /// Connections of one address at once, if that is bounded.
    pub connections_per_address: Option<usize>,
    /// How often one address may connect.
    pub address_rate: Rate,
    /// How often a listener accepts.
    pub accept_rate: Rate,
    /// Time for each thing that comes before a connection: a PROXY header, a handshake, a request.
    pub step: Duration,
    /// Time for all of them.
    pub total: Duration,
    /// Proxies that are believed when they say for whom they speak.
    pub trusted: Vec<Network>,
}

/// The gate that all listeners of a broker share.
#[derive(Debug)]
pub struct Gate {
    options: Mutex<Arc<GateOptions>>,
    /// TLS handshakes under way.
    pub handshakes: Arc<Places>,
    /// Connections that have not sent their whole first request.
    pub pending: Arc<Places>,
    connections: Arc<Places>,
    addresses: Arc<Mutex<Addresses>>,
    budget: Arc<Budget>,
}

/// What a connection is given when it is let in.
#[derive(Debug)]
pub struct Ticket {
    /// Held as long as the connection is there.
    pub place: Place,
    /// Held until it has sent its whole first request.
    pub pending: Pending,
    /// Who it is, as far as is known.
    pub client: IpAddr,
    /// Held as long as the connection is there, where connections of an address are counted.
    pub held: Option<Held>,
}

/// The place of a connection that has not sent its whole first request, and until when it has it.
#[derive(Debug)]
pub struct Pending {
    /// Up to this uptime.
    pub until: Duration,
    _place: Place,
}

/// One connection of an address. Dropping it says that it has ended.
#[derive(Debug)]
pub struct Held {
    address: Origin,
    addresses: Arc<Mutex<Addresses>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.addresses.lock().close(self.address);
    }
}

impl Gate {
    /// A gate that nobody has come through. Others see in `waiting` how many are at it.
    pub fn new(options: GateOptions, budget: Arc<Budget>, waiting: Waiting) -> Gate {
        Gate {
            handshakes: Places::counting(options.handshakes_max, waiting.handshakes),
            pending: Places::counting(options.pending_max, waiting.pending),
            connections: Places::new(options.connections_max),
            addresses: Arc::default(),
            budget,
            options: Mutex::new(Arc::new(options)),
        }
    }

    /// What is in force.
    pub fn options(&self) -> Arc<GateOptions> {
        Arc::clone(&self.options.lock())
    }

    /// Puts other options into force, for those who come from now on.
    pub fn change(&self, options: GateOptions) {
        self.handshakes.resize(options.handshakes_max);
        self.pending.resize(options.pending_max);
        self.connections.resize(options.connections_max);
        *self.options.lock() = Arc::new(options);
    }

    /// Lets a connection of this peer in.
    ///
    /// # Errors
    /// [`Reason::Shed`], [`Reason::TooManyConnections`], [`Reason::TooManyPending`], and those of
    /// [`Gate::admit`].
    pub fn enter(&self, peer: IpAddr, now: Duration) -> Result<Ticket, Reason> {
        if self.budget.pressure() >= Pressure::RefuseNew {
            return Err(Reason::Shed);
        }
        let held = if self.is_proxy(peer) { None } else { self.admit(peer, now)? };
        let place = self.connections.take().ok_or(Reason::TooManyConnections)?;
        let pending = self.pending.take().ok_or(Reason::TooManyPending)?;
        let pending = Pending { until: now + self.options().total, _place: pending };
        Ok(Ticket { place, pending, client: peer, held })
    }

    /// Whether a peer is a proxy that we believe: it connects for others.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        is_trusted(&self.options().trusted, peer)
    }

    /// Counts a connection of a client. This machine itself may connect as it likes.
    ///
    /// # Errors
    /// [`Reason::TooManyFromAddress`].
    pub fn admit(&self, client: IpAddr, now: Duration) -> Result<Option<Held>, Reason> {
        if client.to_canonical().is_loopback() {
            return Ok(None);
        }
        let address = Origin::from(client);
        let options = self.options();
        let mut addresses = self.addresses.lock();
        if !addresses.may_connect(address, options.address_rate, now) {
            return Err(Reason::TooManyFromAddress);
        }
        let Some(max) = options.connections_per_address else { return Ok(None) };
        if !addresses.open(address, max) {
            return Err(Reason::TooManyFromAddress);
        }
        Ok(Some(Held { address, addresses: Arc::clone(&self.addresses) }))
    }
}
