//! The checker: reads a history and says what in it cannot have been, had the contract been kept.
//! Owns the meaning of every promise, and nothing of how the broker keeps it.
//! # Invariants: pure; it never complains about what slow clients, lost answers or reordered
//! records can explain.
//! # Not here: how a history comes about (`world`, or any other ring that writes one).

mod attempts;
mod cursor;
mod deferred;
mod log;
mod memory;
mod pace;
mod past;
mod quiet;
mod roster;
mod stale;
mod stream;
mod terms;

use crate::history::{Command, Ending, Event, Fact, Record, TopicPosition};
use log::{Horizon, Log};
use memory::{GivenUp, Memory};
use std::collections::BTreeMap;
use std::fmt;
use stream::{Heard, Stream};

/// The promises, named after what the research calls I1 to I17.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// I1: offsets of an epoch are 1..n, each given once.
    Dense,
    /// I2: one place holds the same bytes for every observer, and they are what was published.
    Agreement,
    /// I3, I5: nothing is delivered twice or out of order.
    Order,
    /// I4: what is not delivered is told.
    Gap,
    /// I6: a resume is exactly what was missed, then live.
    Seam,
    /// I7: an epoch ends for good.
    Epoch,
    /// I8: acknowledged is readable, refused never appears.
    Ack,
    /// I9: one key, one message, one answer.
    Idempotence,
    /// I10: one publisher's messages keep their order.
    Fifo,
    /// Nothing of a topic without a subscription that matches it.
    Uninvited,
    /// Every command is answered once, in order, and truly.
    Reply,
    /// A rate lets no more through than it says.
    Rate,
    /// What has ended is not sent again.
    Expiry,
    /// Who is there is told as it is.
    Presence,
    /// Stale and fresh alternate and are true.
    Stale,
    /// I12, I18: what waits and what is sent again is bounded, and nothing is given up before its
    /// turn.
    Bound,
    /// I14: bytes are whole frames, nothing follows a close, and the server says why it ends.
    Frame,
    /// I15: in the end everybody is at the top or was told.
    Liveness,
    /// I16: the last message of a key is never passed over, nor is a delete.
    Conflation,
    /// I17: nothing stays behind.
    Leak,
}

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) says: String,
    /// Index of the record at which it shows.
    pub(crate) record: usize,
    pub(crate) connection: Option<u64>,
    pub(crate) topic: Option<String>,
}

/// What a part of the checker finds, before it is known at which record.
#[derive(Debug)]
struct Fault {
    invariant: Invariant,
    /// Only where the record does not tell.
    connection: Option<u64>,
    topic: Option<String>,
    says: String,
    /// Where it shows, if that is earlier than it is known.
    record: Option<usize>,
}

type Checked = Result<(), Fault>;

/// Where in the history something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    record: usize,
    at: u64,
}

fn fault<T>(invariant: Invariant, topic: &str, says: String) -> Result<T, Fault> {
    let topic = (!topic.is_empty()).then(|| topic.to_owned());
    Err(Fault { invariant, connection: None, topic, says, record: None })
}

/// Whether every promise was kept.
///
/// # Errors
/// The first violation, in the order of the records at which they show.
pub(crate) fn check(history: &[Record]) -> Result<(), Violation> {
    let mut judge = Judge::default();
    history.iter().try_for_each(|record| judge.hear(record))?;
    judge.finish()
}

/// Judges a history while it grows.
#[derive(Default)]
pub(crate) struct Judge {
    checker: Checker,
    /// How many records there were.
    pub(crate) records: usize,
}

impl Judge {
    /// The next record.
    ///
    /// # Errors
    /// The first violation that shows by it.
    pub(crate) fn hear(&mut self, Record { at, fact }: &Record) -> Result<(), Violation> {
        let moment = Moment { record: self.records, at: *at };
        self.records += 1;
        let step = self.checker.step(moment, fact);
        step.map_err(|fault| fault.at(moment.record, fact.connection()))
    }

    /// Judges what can be judged only when everything is known.
    ///
    /// # Errors
    /// The first violation that is found.
    pub(crate) fn finish(&self) -> Result<(), Violation> {
        let end = self.records.saturating_sub(1);
        self.checker.log.finish().map_err(|fault| fault.at(end, None))
    }

    /// Behind a quiet moment: judges what waited for it, and forgets what the broker can send to
    /// nobody any more, because it was taken before this time.
    ///
    /// # Errors
    /// The first violation that is found.
    pub(crate) fn settle(
        &mut self,
        tops: &[TopicPosition],
        since_ms: u64,
    ) -> Result<(), Violation> {
        self.finish()?;
        let open = self.checker.streams.keys().copied().collect();
        self.checker.log.forget(&Horizon { since_ms, tops, open });
        Ok(())
    }

    /// How much it remembers, in things of any kind.
    pub(crate) fn size(&self) -> usize {
        let of = |stream: &Stream| stream.cursors.len() + stream.quiets.len() + stream.asked.len();
        self.checker.log.size() + self.checker.streams.values().map(of).sum::<usize>()
    }
}

#[derive(Default)]
struct Checker {
    log: Log,
    memory: Memory,
    streams: BTreeMap<u64, Stream>,
}

impl Checker {
    fn step(&mut self, moment: Moment, fact: &Fact) -> Checked {
        let Checker { log, memory, streams } = self;
        match fact {
            Fact::Begin(promise) => log.promise = promise.clone(),
            Fact::Crash {} => log.life += 1,
            Fact::Open { connection, name, wire, .. } => {
                streams.insert(*connection, Stream::new(*connection, log.life, (name, wire)));
            }
            Fact::TurnedAway {} => {
                memory.gives_up(GivenUp::NewConnections, log.life, &log.promise)?;
            }
            Fact::Held(held) => memory.held(held, log.life, &log.promise)?,
            Fact::Sent { connection, id, command } => {
                if let Some(stream) = streams.get_mut(connection) {
                    stream.sent(moment, *id, command, log);
                }
            }
            Fact::Heard { connection, id, event, sent } => {
                let Some(stream) = streams.get_mut(connection) else {
                    return fault(Invariant::Frame, "", "heard on no connection".into());
                };
                check_memory(event, *id, stream, (memory, log))?;
                return stream.heard(Heard { moment, sent: *sent }, *id, event, log);
            }
            Fact::Closed { connection, by } => {
                let told = streams.remove(connection).is_none_or(|stream| stream.is_over);
                if *by == Ending::Server && !told {
                    return fault(Invariant::Frame, "", "it ends without a word".into());
                }
            }
            Fact::Garbled { detail, .. } => {
                return fault(Invariant::Frame, "", detail.clone());
            }
            Fact::Quiet { tops, rosters } => {
                quiet::check(streams, tops, moment, log)?;
                roster::check(streams, rosters, &log.promise)?;
            }
            Fact::Restless {} => {
                return fault(Invariant::Liveness, "", "it never becomes quiet".into());
            }
            Fact::Empty { gauges } => {
                if let Some((name, value)) = gauges.iter().find(|(_, value)| **value != 0) {
                    let says = format!("{name} is {} and nobody is there", value.cast_signed());
                    return fault(Invariant::Leak, "", says);
                }
            }
        }
        Ok(())
    }
}

/// How a server may end a connection: the codes that the protocol lists, and their names.
const ENDS: [(u16, &str); 9] = [
    (1000, "normal"),
    (1001, "goingAway"),
    (1002, "protocolError"),
    (1009, "messageTooBig"),
    (1011, "internalError"),
    (4408, "slowConsumer"),
    (4410, "noPong"),
    (4429, "shed"),
    (4500, "badProtocol"),
];

/// A server says truly why it ends a connection or refuses a publisher.
fn check_memory(
    event: &Event,
    id: u64,
    stream: &Stream,
    (memory, log): (&Memory, &Log),
) -> Checked {
    let code = match event {
        Event::Close { code } => *code,
        Event::Error { name } if id == 0 => {
            ENDS.iter().find(|(_, end)| end == name).map_or(0, |(code, _)| *code)
        }
        Event::Error { name } if name == "overloaded" && !log.promise.mailboxes_fill => {
            let is_publish = stream
                .asked
                .front()
                .is_some_and(|asked| matches!(asked.command, Command::Publish(_)));
            return if is_publish {
                memory.gives_up(GivenUp::Publishers, stream.life, &log.promise)
            } else {
                Ok(())
            };
        }
        _ => return Ok(()),
    };
    if !ENDS.iter().any(|(listed, _)| *listed == code) {
        return fault(Invariant::Frame, "", format!("{event:?} is no end that is listed"));
    }
    if code == 4429 {
        return memory.gives_up(GivenUp::Slowest, stream.life, &log.promise);
    }
    Ok(())
}

impl Fault {
    fn at(self, record: usize, connection: Option<u64>) -> Violation {
        let Fault { invariant, topic, says, .. } = self;
        let record = self.record.unwrap_or(record);
        let connection = connection.or(self.connection);
        Violation { invariant, says, record, connection, topic }
    }
}

/// Whether a topic or filter covers a topic: the definition, as a recursion over the segments.
pub(crate) fn covers(target: &str, topic: &str) -> bool {
    fn matches(target: &[&str], topic: &[&str]) -> bool {
        match (target, topic) {
            ([], []) | ([">"], [_, ..]) => true,
            (["*", target @ ..], [_, topic @ ..]) => matches(target, topic),
            ([a, target @ ..], [b, topic @ ..]) => a == b && matches(target, topic),
            _ => false,
        }
    }
    let target: Vec<&str> = target.split('.').collect();
    let topic: Vec<&str> = topic.split('.').collect();
    matches(&target, &topic)
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at record {}", self.invariant, self.record)?;
        if let Some(connection) = self.connection {
            write!(f, ", connection {connection}")?;
        }
        if let Some(topic) = &self.topic {
            write!(f, ", topic `{topic}`")?;
        }
        write!(f, ": {}", self.says)
    }
}

/// The records that a reader of the violation needs: what its connection sent and heard about its
/// topic, and the latest publishes to the topic with their answers.
pub(crate) fn excerpt<'a>(
    history: &'a [Record],
    violation: &Violation,
) -> Vec<(usize, &'a Record)> {
    const ITS_OWN_MAX: usize = 30;
    const PUBLISHES_MAX: usize = 12;
    let before = || history.iter().enumerate().take(violation.record).rev();
    let is_about = |fact: &Fact| match (&violation.topic, fact.target()) {
        (Some(topic), Some(target)) => covers(target, topic),
        _ => true,
    };
    let is_own = |fact: &Fact| match violation.connection {
        Some(connection) => fact.connection() == Some(connection) && is_about(fact),
        None => violation.topic.is_some() && is_about(fact) && fact.target().is_some(),
    };
    let is_publish = |fact: &Fact| {
        let publishes = |command: &Command| matches!(command, Command::Publish(_));
        matches!(fact, Fact::Sent { command, .. } if publishes(command)) && is_about(fact)
    };
    let answers = |fact: &Fact| match fact {
        Fact::Heard { connection, id, event: Event::Published(_), .. } => Some((*connection, *id)),
        _ => None,
    };
    let mut publishes: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for (index, Record { fact, .. }) in before().filter(|(_, record)| is_publish(&record.fact)) {
        if let Fact::Sent { connection, id, .. } = fact
            && publishes.len() < PUBLISHES_MAX
        {
            publishes.insert((*connection, *id), index);
        }
    }
    let mut chosen: Vec<usize> = publishes.values().copied().collect();
    let is_answer = |fact: &Fact| answers(fact).is_some_and(|id| publishes.contains_key(&id));
    chosen.extend(before().filter(|(_, record)| is_answer(&record.fact)).map(|(index, _)| index));
    let own = before().filter(|(_, record)| is_own(&record.fact) && !is_publish(&record.fact));
    chosen.extend(own.map(|(index, _)| index).take(ITS_OWN_MAX));
    chosen.push(violation.record);
    chosen.sort_unstable();
    chosen.dedup();
    chosen.into_iter().map(|index| (index, &history[index])).collect()
}
