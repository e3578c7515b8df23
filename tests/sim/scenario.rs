//! What a seed decides before the first step: sizes, bounds, names, and which actions are common.
//! Bounds are drawn small, so that they are reached; sometimes none is, so that it stays away.
//! # Not here: the steps (`world`).

use crate::history::{self, Policy, Promise, Replay, Retention};
use crate::random::Random;
use crate::socket::{Intake, Width};
use fanfare::limits::Limits;
use fanfare::shard::ShardOptions;
use fanfare::topics::history::HistoryOptions;
use fanfare::topics::idempotency::IdempotencyOptions;
use fanfare::topics::mailbox::MailboxOptions;
use fanfare::topics::name::TopicFilter;
use fanfare::topics::registry::RegistryOptions;
use fanfare::topics::rule::{Presence, Rule, Rules, Snapshot};
use fanfare::topics::terms::{self, Overflow, Rate};
use fanfare::topics::topic::ResumeOptions;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const TOPICS: [&str; 8] = ["a.x", "a.y", "b.x", "a.x.p", "a.x.q", "b.y.p", "c", "d"];
const FILTERS: [&str; 8] = ["a.*", "*.x", "a.>", ">", "*", "*.*.p", "a.x.*", "b.>"];

/// What may happen in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The server reads one thing that a client sent.
    Read,
    /// A shard does a slice of its work, if it was woken.
    Turn,
    /// A socket that was full is written to.
    Pump,
    /// A client takes bytes off its connection.
    Receive,
    /// Time passes.
    Pass,
    Publish,
    /// A publisher asks again, or uses its key for something else.
    Retry,
    /// A message comes in beside the connections, as by HTTP.
    PublishDirectly,
    Subscribe,
    Unsubscribe,
    /// A subscription is given other terms.
    Update,
    AskHistory,
    AskPresence,
    Ping,
    /// A client says hello on a connection that may have begun long ago.
    SayHello,
    Connect,
    /// A client closes its connection in good order.
    Leave,
    /// A connection breaks.
    Cut,
    /// A client begins to read faster or slower.
    ChangePace,
    /// The registry forgets what nobody would miss.
    Sweep,
    /// The server closes all connections.
    CloseAll,
    /// The broker loses everything and begins anew.
    Crash,
}

/// Each action with how often it happens beside the others; the first six always may.
const ACTIONS: [(Action, usize); 22] = [
    (Action::Read, 800),
    (Action::Turn, 480),
    (Action::Pump, 240),
    (Action::Receive, 800),
    (Action::Pass, 160),
    (Action::Connect, 240),
    (Action::Publish, 320),
    (Action::Retry, 64),
    (Action::PublishDirectly, 200),
    (Action::Subscribe, 360),
    (Action::Unsubscribe, 200),
    (Action::Update, 120),
    (Action::AskHistory, 40),
    (Action::AskPresence, 30),
    (Action::Ping, 16),
    (Action::SayHello, 16),
    (Action::Leave, 24),
    (Action::Cut, 48),
    (Action::ChangePace, 80),
    (Action::Sweep, 32),
    (Action::CloseAll, 1),
    (Action::Crash, 1),
];
const ALWAYS: usize = 6;

/// Everything about one run that does not change in it.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) steps: usize,
    pub(crate) shards: usize,
    pub(crate) clients: usize,
    pub(crate) topics: Vec<&'static str>,
    pub(crate) filters: Vec<&'static str>,
    pub(crate) registry: RegistryOptions,
    pub(crate) mailbox: MailboxOptions,
    pub(crate) shard: ShardOptions,
    pub(crate) limits: Limits,
    pub(crate) kernel_room: usize,
    /// How long time passes at most in one step, in milliseconds.
    pub(crate) pass_ms: usize,
    /// Bytes that a payload is filled up with at most.
    pub(crate) padding: usize,
    /// What messages are about.
    pub(crate) keys: Keys,
    /// Policies that clients ask for.
    pub(crate) policies: Vec<Policy>,
    /// What may wait for all connections together, if that is bounded.
    pub(crate) budget_bytes: Option<usize>,
    weights: Vec<usize>,
}

/// What messages are about, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub(crate) count: usize,
    /// How many messages in a hundred have a key, and how many of those are deletes.
    pub(crate) percent: usize,
    pub(crate) deletes_percent: usize,
    /// How many messages in a hundred end, and when at the latest.
    pub(crate) ending_percent: usize,
    pub(crate) ttl_ms_max: usize,
}

impl Keys {
    fn draw(chance: &mut Random) -> Keys {
        Keys {
            count: *chance.pick(&[1, 2, 3, 8]).expect("not empty"),
            percent: *chance.pick(&[0, 20, 80, 100]).expect("not empty"),
            deletes_percent: *chance.pick(&[0, 10, 40]).expect("not empty"),
            ending_percent: *chance.pick(&[0, 0, 0, 30, 90]).expect("not empty"),
            ttl_ms_max: *chance.pick(&[5, 500, 20_000]).expect("not empty"),
        }
    }
}

impl Scenario {
    pub(crate) fn draw(chance: &mut Random) -> Scenario {
        let topics = some_of(&TOPICS, *chance.pick(&[1, 1, 2, 3, 6]).expect("not empty"), chance);
        let policies = policies(chance);
        let registry = registry(&topics, &policies, chance);
        let mut scenario = Scenario {
            steps: chance.within(300..=2_000),
            shards: chance.within(1..=4),
            clients: chance.within(1..=7),
            filters: some_of(&FILTERS, *chance.pick(&[1, 2, 5]).expect("not empty"), chance),
            topics,
            mailbox: MailboxOptions {
                messages_max: bound(1..=12, 65_536, chance),
                bytes_max: bound(40..=1_000, 64 << 20, chance),
            },
            shard: ShardOptions {
                outbound_bytes_max: narrow(60..=1_500, 1 << 20, chance),
                outbound_age_max: Duration::from_secs(bound(1..=3, 5, chance) as u64),
                cursors_max: if chance.chance(15) { chance.within(1..=3) } else { 16_384 },
                write_stall_max: Duration::from_secs(bound(2..=6, 10, chance) as u64),
                ping_interval: Duration::from_secs(bound(3..=10, 25, chance) as u64),
                pong_timeout: Duration::from_secs(bound(2..=5, 10, chance) as u64),
                ..ShardOptions::default()
            },
            limits: Limits {
                subscriptions_max: bound(2..=5, 128, chance),
                filters_max: bound(1..=3, 8, chance),
                snapshot_topics_max: bound(1..=4, 1_024, chance),
                resume: registry.resume,
                message_bytes_max: bound(60..=250, 64 << 10, chance),
                ..Limits::default()
            },
            kernel_room: narrow(40..=800, 1 << 16, chance),
            pass_ms: *chance.pick(&[20, 300, 3_000]).expect("not empty"),
            padding: *chance.pick(&[0, 20, 300]).expect("not empty"),
            keys: Keys::draw(chance),
            policies,
            budget_bytes: chance.chance(20).then(|| chance.within(500..=6_000)),
            registry,
            weights: weights(chance),
        };
        if chance.chance(4) {
            scenario.enlarge();
        }
        match chance.below(5) {
            0 => scenario.slow_down(chance),
            1 => {
                scenario.slow_down(chance);
                scenario.forget_soon();
            }
            2 => scenario.let_wait(),
            _ => {}
        }
        scenario
    }

    /// Clients that read slowly, and little that may wait for them: gaps come and go.
    fn slow_down(&mut self, chance: &mut Random) {
        let most = *chance.pick(&[80, 300]).expect("not empty");
        let outbound_bytes_max = chance.within(20..=most);
        self.shard = ShardOptions { outbound_bytes_max, ..ShardOptions::default() };
        self.kernel_room = chance.within(30..=200);
        self.mailbox = MailboxOptions::default();
        self.padding = chance.below(20);
        self.pass_ms = 200;
        self.weigh(Action::Subscribe, 1_000);
        self.weigh(Action::Unsubscribe, 600);
    }

    /// Topics of which nothing stays, so that they often begin anew.
    fn forget_soon(&mut self) {
        for (_, rule) in &mut self.registry.rules.ordered {
            let rule = Arc::make_mut(rule);
            rule.history.messages = 0;
            rule.idle_ttl = Duration::ZERO;
        }
        self.registry.idempotency.window = Duration::from_millis(100);
        self.weigh(Action::Sweep, 200);
    }

    /// Messages so large that one serving of a connection that is behind does not hold all of them.
    fn enlarge(&mut self) {
        self.padding = 20_000;
        self.limits.message_bytes_max = 64 << 10;
        self.steps = self.steps.min(500);
        self.registry.history_bytes_max = PLENTY;
        for (_, rule) in &mut self.registry.rules.ordered {
            let rule = Arc::make_mut(rule);
            rule.history.messages = 256;
            rule.history.bytes = PLENTY;
            rule.overflow = Overflow::CatchUp;
        }
        self.budget_bytes = None;
    }

    /// Shards that seldom work: much waits in the mailboxes while subscriptions come and go.
    fn let_wait(&mut self) {
        self.shards = 1;
        self.mailbox = MailboxOptions::default();
        self.weigh(Action::Turn, 60);
    }

    fn weigh(&mut self, action: Action, weight: usize) {
        for (place, (other, _)) in self.weights.iter_mut().zip(ACTIONS) {
            if other == action {
                *place = weight;
            }
        }
    }

    pub(crate) fn action(&self, chance: &mut Random) -> Action {
        ACTIONS[chance.weighted(&self.weights)].0
    }

    /// A way to a client: full soon, in large or in small pieces.
    pub(crate) fn width(&self, chance: &mut Random) -> Width {
        let intake = match chance.below(3) {
            0 => Intake::Room,
            1 => Intake::All,
            _ => Intake::Crumbs(chance.within(1..=30)),
        };
        Width { room: self.kernel_room, intake }
    }

    /// Time after which no rate holds anything back any more, and nothing that is not stale becomes
    /// so without being told.
    pub(crate) fn quiet_ms(&self) -> u64 {
        let slowest = self.policies.iter().map(|policy| policy.interval_ms()).max();
        slowest.unwrap_or_default().max(1_000) + 5
    }

    /// What the broker promises under these bounds.
    pub(crate) fn promise(&self) -> Promise {
        let RegistryOptions { history_bytes_max, rules, idempotency, resume, .. } = &self.registry;
        let promised = |(_, rule): &&(TopicFilter, Arc<Rule>)| {
            // Where bytes are short, how many messages stay depends on how large they are.
            *history_bytes_max >= PLENTY && rule.history.bytes >= PLENTY
        };
        let named = |topic: &TopicFilter| topic.as_str().to_owned();
        let retention = |(topic, rule): &(TopicFilter, Arc<Rule>)| {
            let (messages, age_ms) = (rule.history.messages as u64, millis(rule.history.age));
            (named(topic), Retention { messages, age_ms })
        };
        let rule = |(topic, rule): &(TopicFilter, Arc<Rule>)| (named(topic), promised_rule(rule));
        Promise {
            idempotency_ms: millis(idempotency.window),
            retention: rules.ordered.iter().filter(promised).map(retention).collect(),
            rules: rules.ordered.iter().map(rule).collect(),
            filter_cap: rules.other.cap.map(told),
            replay: Replay {
                messages_max: resume.messages_max as u64,
                bytes_max: resume.bytes_max as u64,
            },
            held_bytes_max: self.held_bytes_max() as u64,
            mailboxes_fill: self.mailbox.messages_max < 65_536 || self.mailbox.bytes_max < PLENTY,
            budget_bytes: self.budget_bytes.map(|bytes| bytes as u64),
        }
    }

    /// What may wait for one connection: the queue's own bound, or all that is read from history for
    /// it at once; behind either the reply to one command, with what it sends first.
    fn held_bytes_max(&self) -> usize {
        let rules = &self.registry.rules.ordered;
        let frame = (self.padding + 40).min(self.limits.message_bytes_max) * 7 / 5 + 300;
        let held =
            |(_, rule): &(TopicFilter, Arc<Rule>)| rule.history.messages + self.keys.count + 1;
        let served: usize = rules.iter().map(held).map(|messages| (messages + 2) * frame).sum();
        let replayed: usize = rules.iter().map(held).sum();
        let replayed = replayed.min(self.registry.resume.messages_max) * frame;
        let reply = replayed + rules.len() * (self.keys.count + 4) * frame + 2_000;
        self.shard.outbound_bytes_max.max(served) + reply
    }
}

/// More bytes than all messages of a run have.
const PLENTY: usize = 8 << 20;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("short")
}

fn told(policy: terms::Policy) -> Policy {
    match policy {
        terms::Policy::All => Policy::All,
        terms::Policy::Latest => Policy::Latest,
        terms::Policy::MaxHz(rate) => Policy::MaxHz(rate.hz()),
    }
}

fn asked(policy: Policy) -> terms::Policy {
    match policy {
        Policy::All => terms::Policy::All,
        Policy::Latest => terms::Policy::Latest,
        Policy::MaxHz(hz) => terms::Policy::MaxHz(Rate::from_hz(hz).expect("a rate")),
    }
}

fn promised_rule(rule: &Rule) -> history::Rule {
    history::Rule {
        cap: rule.cap.map(told),
        overflow: match rule.overflow {
            Overflow::CatchUp => history::Overflow::CatchUp,
            Overflow::Gap => history::Overflow::Gap,
            Overflow::Disconnect => history::Overflow::Disconnect,
        },
        has_history: rule.history.messages > 0,
        keys_max: match rule.snapshot {
            Snapshot::Latest => None,
            Snapshot::Keys { max } => Some(max as u64),
        },
        members_max: match rule.presence {
            Presence::Off => None,
            Presence::On { members_max } => Some(members_max as u64),
        },
        stale_ms: rule.stale_after.map(millis),
    }
}

/// Policies of a run: every message in most, and some rates, seldom so slow that nothing comes of
/// them before the end.
fn policies(chance: &mut Random) -> Vec<Policy> {
    const RATES: [f64; 7] = [1_000.0, 40.0, 7.5, 2.0, 2.0, 0.8, 0.02];
    let mut policies = Vec::new();
    if chance.chance(80) {
        policies.push(Policy::All);
    }
    if chance.chance(60) {
        policies.push(Policy::Latest);
    }
    if policies.is_empty() || chance.chance(60) {
        let rates = some_of(&RATES, chance.within(1..=3), chance);
        policies.extend(rates.into_iter().map(Policy::MaxHz));
    }
    policies
}

fn registry(topics: &[&str], policies: &[Policy], chance: &mut Random) -> RegistryOptions {
    let idle_ttl = Duration::from_millis(*chance.pick(&[0, 500, 4_000]).expect("not empty"));
    let capping = if chance.chance(30) { 50 } else { 0 };
    let mut rule = |topic: &&str| {
        let rule = Arc::new(Rule { idle_ttl, ..draw_rule(policies, capping, chance) });
        (TopicFilter::parse(topic).expect("a topic is a filter"), rule)
    };
    let ordered = topics.iter().map(&mut rule).collect();
    let cap = chance.pick(policies).filter(|_| capping > 0).map(|policy| asked(*policy));
    RegistryOptions {
        rules: Rules {
            ordered,
            other: Arc::new(Rule { cap, ..Rule::default() }),
            ..Rules::default()
        },
        topics_max: bound(2..=5, 1_000, chance),
        history_bytes_max: bound(1_000..=8_000, PLENTY, chance),
        resume: ResumeOptions {
            messages_max: bound(1..=8, 1_000, chance),
            bytes_max: bound(30..=600, 1 << 20, chance),
        },
        idempotency: IdempotencyOptions {
            window: Duration::from_millis(*chance.pick(&[400, 3_000, 60_000]).expect("not empty")),
            ..IdempotencyOptions::default()
        },
    }
}

/// The rule of one topic. `capping` is how often it caps, in a hundred.
fn draw_rule(policies: &[Policy], capping: usize, chance: &mut Random) -> Rule {
    let overflows = [Overflow::CatchUp, Overflow::CatchUp, Overflow::Gap, Overflow::Disconnect];
    let keys_max = *chance.pick(&[1, 3, 1_000]).expect("not empty");
    let members_max = *chance.pick(&[2, 100, 100]).expect("not empty");
    let stale_ms = *chance.pick(&[150, 900, 4_000]).expect("not empty");
    Rule {
        history: HistoryOptions {
            messages: *chance.pick(&[0, 1, 3, 20, 256, 256]).expect("not empty"),
            age: Duration::from_millis(*chance.pick(&[800, 5_000, 60_000]).expect("not empty")),
            bytes: bound(200..=3_000, PLENTY, chance),
        },
        snapshot: if chance.chance(40) {
            Snapshot::Keys { max: keys_max }
        } else {
            Snapshot::Latest
        },
        overflow: *chance.pick(&overflows).expect("not empty"),
        cap: chance.chance(capping).then(|| asked(*chance.pick(policies).expect("not empty"))),
        presence: if chance.chance(40) { Presence::On { members_max } } else { Presence::Off },
        stale_after: chance.chance(30).then(|| Duration::from_millis(stale_ms)),
        ..Rule::default()
    }
}

/// A bound that is tight in some runs and far away in most.
fn bound(tight: RangeInclusive<usize>, wide: usize, chance: &mut Random) -> usize {
    if chance.chance(30) { chance.within(tight) } else { wide }
}

/// A bound that is mostly tight: what slow clients meet.
fn narrow(tight: RangeInclusive<usize>, wide: usize, chance: &mut Random) -> usize {
    if chance.chance(70) { chance.within(tight) } else { wide }
}

fn some_of<T: Copy>(all: &[T], count: usize, chance: &mut Random) -> Vec<T> {
    let mut left = all.to_vec();
    (0..count).map(|_| left.remove(chance.below(left.len()))).collect()
}

/// Some actions happen not at all in a run and some often: then rare combinations are not.
fn weights(chance: &mut Random) -> Vec<usize> {
    let mut weights = Vec::new();
    for (index, (_, weight)) in ACTIONS.iter().enumerate() {
        let factors: &[usize] = if index < ALWAYS { &[1, 2, 4, 8] } else { &[0, 2, 4, 4, 12] };
        weights.push(weight * chance.pick(factors).expect("not empty"));
    }
    weights
}
