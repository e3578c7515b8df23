//! Who is subscribed to a topic.
//! # Invariants: a member is listed or counted exactly once for as long as it is there; the list is
//! bounded.
//! # Not here: telling the others (`registry` posts it, `shard` delivers it).

use super::message::Member;
use std::collections::BTreeMap;

/// The members of one topic.
#[derive(Debug, Default)]
pub struct Roster {
    listed: BTreeMap<Box<str>, Option<Box<str>>>,
    /// Members beyond those that may be listed.
    unlisted: u64,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The list changed: the others are told.
    Listed,
    /// Only the count changed.
    Counted,
}

/// Who is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attendance {
    /// How many there are.
    pub count: u64,
    /// Those that are listed, by the names of their connections.
    pub members: Vec<Member>,
}

impl Attendance {
    /// Whether there are members that are not listed.
    pub fn has_more(&self) -> bool {
        self.count > self.members.len() as u64
    }
}

impl Roster {
    /// What [`Roster::enter`] would do.
    pub fn place(&self, members_max: usize) -> Change {
        if self.listed.len() < members_max { Change::Listed } else { Change::Counted }
    }

    /// Adds a member that is not there yet.
    pub fn enter(&mut self, member: Member, members_max: usize) {
        match self.place(members_max) {
            Change::Listed => {
                self.listed.insert(member.connection, member.name);
            }
            Change::Counted => self.unlisted += 1,
        }
    }

    /// The listed member of this connection.
    pub fn find(&self, connection: &str) -> Option<Member> {
        let (connection, name) = self.listed.get_key_value(connection)?;
        Some(Member { connection: connection.clone(), name: name.clone() })
    }

    /// Takes out a member that is there.
    pub fn exit(&mut self, connection: &str) {
        if self.listed.remove(connection).is_none() {
            self.unlisted = self.unlisted.saturating_sub(1);
        }
    }

    /// Who is there.
    pub fn attendance(&self) -> Attendance {
        Attendance {
            count: self.listed.len() as u64 + self.unlisted,
            members: self
                .listed
                .iter()
                .map(|(connection, name)| Member {
                    connection: connection.clone(),
                    name: name.clone(),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(connection: &str) -> Member {
        Member { connection: connection.into(), name: None }
    }

    #[test]
    fn members_beyond_the_bound_are_counted_and_not_listed() {
        let mut roster = Roster::default();
        for connection in ["b", "a", "c"] {
            roster.enter(member(connection), 2);
        }
        let there = roster.attendance();
        assert_eq!((there.count, there.has_more()), (3, true));
        assert_eq!(there.members, [member("a"), member("b")]);
        roster.exit("c");
        assert!(!roster.attendance().has_more());
        roster.exit("a");
        assert_eq!((roster.find("a"), roster.find("b")), (None, Some(member("b"))));
        roster.exit("b");
        assert_eq!(roster.attendance(), Attendance::default());
    }
}
