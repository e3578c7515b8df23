//! Presence: connections of this shard enter and leave topics whose rule keeps a list, and watch it.
//! # Invariants: whoever entered leaves exactly once, however its connection ends.
//! # Not here: the list (`topics::presence`).

use super::Shard;
use super::connection::ConnectionId;
use super::outbound::Socket;
use super::subscribers::{Member as LocalMember, Wanted};
use crate::planted::{self, Bug};
use crate::reason::Reason;
use crate::topics::message::{Member, TopicHead};
use crate::topics::rule::Presence;
use crate::topics::terms::{Overflow, Policy, Terms};
use std::sync::Arc;

/// A departure that could not be told yet.
#[derive(Debug)]
pub(super) struct Exit {
    head: Arc<TopicHead>,
    connection: Box<str>,
}

impl<S: Socket> Shard<S> {
    /// What others call a connection.
    pub fn name_of(&self, id: ConnectionId) -> String {
        format!("{}-{id}", self.id().index())
    }

    /// Lists a connection that has just joined a topic, if the topic's rule says so.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] when those who watch cannot be told now, be it that it left before.
    pub fn enter(
        &mut self,
        id: ConnectionId,
        head: &TopicHead,
        name: Option<Box<str>>,
    ) -> Result<(), Reason> {
        if head.rule.presence == Presence::Off {
            return Ok(());
        }
        let member = Member { connection: self.name_of(id).into(), name };
        // Its last departure comes first, or it would end this membership.
        self.retry_exits();
        let is_leaving =
            |exit: &Exit| exit.head.id == head.id && exit.connection == member.connection;
        if self.exits.iter().any(is_leaving) {
            return Err(Reason::Overloaded);
        }
        self.registry.enter(head, member, self.now)
    }

    /// Has a connection told who joins and leaves a topic.
    ///
    /// # Errors
    /// [`Reason::NotAllowed`] where the topic's rule keeps no presence.
    pub fn watch(&mut self, id: ConnectionId, head: &TopicHead) -> Result<(), Reason> {
        let companion = self.registry.watch(head, &mut self.inbox).ok_or(Reason::NotAllowed)?;
        self.joining = Some(Wanted::Presence(head.name.clone()));
        self.settle();
        let terms = Terms { policy: Policy::All, overflow: Some(Overflow::Gap) };
        let member = LocalMember { connection: id.slot, terms, joined: self.sequence };
        let (place, index) = self.subscribers.enter_topic(&companion, Default::default(), member);
        self.joining = None;
        self.note_membership(id, place, index);
        if let Some(connection) = self.connection_mut(id) {
            connection.watches += 1;
        }
        Ok(())
    }

    /// Takes a connection off the list of a topic that it has left.
    pub(super) fn exit(&mut self, id: ConnectionId, head: &Arc<TopicHead>) {
        let connection = self.name_of(id);
        let exited = self.registry.exit(head, &connection, self.now);
        if exited.is_err() && !planted::is(Bug::ExitForgotten) {
            self.exits.push(Exit { head: Arc::clone(head), connection: connection.into() });
        }
    }

    /// Tells departures that could not be told before.
    pub(super) fn retry_exits(&mut self) {
        let (registry, now) = (&self.registry, self.now);
        self.exits.retain(|exit| registry.exit(&exit.head, &exit.connection, now).is_err());
    }
}
