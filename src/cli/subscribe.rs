//! `fanfare subscribe`: prints messages as they come, and tells on standard error what is missing.
//! # Invariants: a message is one line, the same on every wire, and printed once, except that a delete has
//! no payload to print alone; a gap and a resume that failed are always told; after `--count` messages
//! nothing more is printed.
//! # Not here: coming back after the connection is lost (`client`).

use super::args::SubscribeArgs;
use super::error::CommandError;
use super::line::{self, LineForm};
use crate::client::{
    Beginning, Client, Error, Event, Gap, Member, Message, Policy, Position, Presence, Recovery,
    State, States, Subscribed, Subscription, Terms, TopicName,
};
use std::future::poll_fn;
use std::process::ExitCode;
use std::task::{Context, Poll};

/// Prints messages until there are enough, or coming back is of no use.
pub(super) fn run(args: &SubscribeArgs) -> ExitCode {
    super::end(super::block_on(subscribe(args)))
}

async fn subscribe(args: &SubscribeArgs) -> Result<(), CommandError> {
    let mut client = Client::at(args.url.clone()).trust(args.trust.trust());
    if args.proto {
        client = client.protobuf();
    }
    if let Some(name) = &args.name {
        client = client.name(name);
    }
    if let Some(token) = args.token.token()? {
        client = client.token(token.reveal());
    }
    let client = client.open().await?;
    let states = client.states();
    let mut reader = Reader { args, subscriptions: Vec::new(), printed: 0, resumed: Vec::new() };
    tokio::select! {
        done = reader.run(&client) => done?,
        ended = follow(args, states) => return ended,
    }
    // The other end may be slow to answer, and there is nothing more to hear.
    drop(reader);
    client.close().await;
    Ok(())
}

/// Tells where the connection stands, whenever it is lost.
async fn follow(args: &SubscribeArgs, mut states: States) -> Result<(), CommandError> {
    while let Some(state) = states.next().await {
        match state {
            State::Connecting | State::Connected { .. } | State::Closed { error: None } => {}
            State::Waiting { reason, .. } if args.no_reconnect => return Err(reason.into()),
            State::Waiting { reason, delay } => {
                super::tell(&format!("lost: {reason}; again in {} ms", delay.as_millis()));
            }
            State::Closed { error: Some(error) } => return Err(error.into()),
        }
    }
    std::future::pending().await
}

/// What is subscribed to, and how much of it has been printed.
struct Reader<'a> {
    args: &'a SubscribeArgs,
    subscriptions: Vec<Subscription>,
    printed: u64,
    /// What was granted to subscriptions that say next what became of their topic.
    resumed: Vec<Option<Subscribed>>,
}

impl Reader<'_> {
    async fn run(&mut self, client: &Client) -> Result<(), CommandError> {
        for target in &self.args.targets {
            // What came meanwhile for those before waits in their lanes, and more than that in the socket.
            self.subscriptions.push(asked(self.args, client, target.as_str()).await?);
            self.resumed.push(None);
            while let Poll::Ready(event) = poll_fn(|context| Poll::Ready(self.poll(context))).await
            {
                if self.take(event)? {
                    return Ok(());
                }
            }
        }
        loop {
            let event = poll_fn(|context| self.poll(context)).await;
            if self.take(event)? {
                return Ok(());
            }
        }
    }

    /// The next event of any subscription, with its place in the list.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(usize, Option<Result<Event, Error>>)> {
        for (index, subscription) in self.subscriptions.iter_mut().enumerate() {
            if let Poll::Ready(event) = subscription.poll_next(context) {
                return Poll::Ready((index, event));
            }
        }
        Poll::Pending
    }

    /// Prints or tells an event. Returns whether there are enough of them.
    fn take(
        &mut self,
        (index, event): (usize, Option<Result<Event, Error>>),
    ) -> Result<bool, CommandError> {
        match event {
            Some(Ok(Event::Message(message))) => self.print(index, &message),
            Some(Ok(event)) => {
                self.tell(index, event);
                Ok(false)
            }
            Some(Err(error)) => Err(error.into()),
            None => Ok(true),
        }
    }

    fn print(&mut self, index: usize, message: &Message) -> Result<bool, CommandError> {
        // Each subscription has it; it is printed for the first one whose it is.
        let before = self.args.targets.iter().take(index);
        if before.into_iter().any(|target| target.covers(&message.topic)) {
            return Ok(false);
        }
        let form = if self.args.raw { LineForm::Raw } else { LineForm::Json };
        super::put(&line::print(message, form)?)?;
        if form == LineForm::Raw && message.is_delete() {
            super::tell(&format!("deleted: {} {}", message.topic, message.key));
        }
        self.printed += 1;
        Ok(self.args.count.is_some_and(|count| self.printed >= count))
    }

    fn tell(&mut self, index: usize, event: Event) {
        let Some(subscription) = self.subscriptions.get(index) else { return };
        let Some(resumed) = self.resumed.get_mut(index) else { return };
        let words = match event {
            Event::Subscribed(subscribed)
                if subscribed.beginning == Beginning::Resumed && subscribed.position.is_some() =>
            {
                // The line says what became of the topic, too.
                *resumed = Some(subscribed);
                None
            }
            Event::Recovered(recovery) => {
                let granted = resumed.take();
                let granted = granted.map_or_else(String::new, |granted| granted_words(&granted));
                Some(recovery_words(&recovery) + &granted)
            }
            event => words(subscription.topic(), &event),
        };
        if let Some(words) = words {
            super::tell(&words);
        }
    }
}

async fn asked(
    args: &SubscribeArgs,
    client: &Client,
    topic: &str,
) -> Result<Subscription, CommandError> {
    let mut asked = client.subscribe(topic).last(args.last);
    if args.snapshot {
        asked = asked.snapshot();
    }
    if let Some(position) = args.since {
        asked = asked.since(position);
    }
    if args.policy() != Policy::All {
        asked = asked.policy(args.policy());
    }
    if let Some(overflow) = args.overflow {
        asked = asked.overflow(overflow);
    }
    if args.presence {
        asked = asked.presence();
    }
    Ok(asked.await?)
}

/// What a person should know of an event that is no message.
fn words(topic: &str, event: &Event) -> Option<String> {
    match event {
        Event::Subscribed(subscribed) => {
            let begun = match subscribed.beginning {
                Beginning::Anew => "subscribed",
                Beginning::Resumed => "resumed",
            };
            let place = place_words(subscribed.position);
            Some(format!("{begun}: {topic}{place}{}", granted_words(subscribed)))
        }
        Event::Gap(Gap { topic, from, to, count, reason, .. }) => {
            Some(format!("gap: {topic} {from}..{to} ({count} messages, {})", reason.name()))
        }
        Event::Stale { topic, since_ms } => Some(stale_words(topic, *since_ms)),
        Event::Fresh(topic) => Some(format!("fresh: {topic}")),
        Event::Joined(member) => Some(format!("joined: {topic} {}", member_words(member))),
        Event::Left(member) => Some(format!("left: {topic} {}", member_words(member))),
        Event::Present(presence) => Some(present_words(topic, presence)),
        Event::SnapshotEnd { topics } => Some(format!("snapshot end: {topic} ({topics} topics)")),
        Event::Recovered(recovery) => Some(recovery_words(recovery)),
        Event::Message(_) => None,
    }
}

fn recovery_words(Recovery { topic, position, loss, .. }: &Recovery) -> String {
    let place = place_words(*position);
    match loss {
        None => format!("resumed: {topic}{place}"),
        Some(loss) => {
            format!("not resumed: {topic}, {}, messages are missing{place}", loss.name())
        }
    }
}

fn place_words(position: Option<Position>) -> String {
    match position {
        Some(Position { epoch, offset }) => format!(", live after {epoch}:{offset}"),
        None => String::new(),
    }
}

/// What was granted that is not the default, and whether there is nothing new at the moment.
fn granted_words(subscribed: &Subscribed) -> String {
    terms_words(subscribed.terms) + if subscribed.stale { ", stale" } else { "" }
}

fn terms_words(Terms { policy, overflow }: Terms) -> String {
    let policy = match policy {
        Policy::All => String::new(),
        Policy::Latest => ", latest".to_owned(),
        Policy::MaxHz(rate) => format!(", maxHz {rate}"),
    };
    policy + &overflow.map(|overflow| format!(", {}", overflow.name())).unwrap_or_default()
}

fn stale_words(topic: &TopicName, since_ms: Option<u64>) -> String {
    match since_ms {
        None => format!("stale: {topic}, without any message"),
        Some(since) => format!("stale: {topic}, the last message is of {since}"),
    }
}

fn member_words(Member { connection, name, .. }: &Member) -> String {
    if name.is_empty() { connection.clone() } else { format!("{connection} ({name})") }
}

fn present_words(topic: &str, Presence { count, members, more, .. }: &Presence) -> String {
    let mut words = format!("present: {topic} {count}");
    for (index, member) in members.iter().enumerate() {
        words += if index == 0 { ": " } else { ", " };
        words += &member_words(member);
    }
    words + if *more { " and others" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_beside_the_default_is_told() {
        let rate = crate::client::Rate::from_hz(0.5).expect("a rate");
        let gap = Some(crate::client::Overflow::Gap);
        let cases = [
            (Terms { policy: Policy::All, overflow: None }, ""),
            (Terms { policy: Policy::Latest, overflow: None }, ", latest"),
            (Terms { policy: Policy::MaxHz(rate), overflow: gap }, ", maxHz 0.5, gap"),
        ];
        for (terms, expected) in cases {
            assert_eq!(terms_words(terms), expected);
        }
    }

    #[test]
    fn a_topic_that_is_silent_is_told_with_the_time_of_its_last_message() {
        let topic = TopicName::parse("a.b").expect("a name");
        assert_eq!(stale_words(&topic, None), "stale: a.b, without any message");
        assert_eq!(stale_words(&topic, Some(5)), "stale: a.b, the last message is of 5");
    }
}
