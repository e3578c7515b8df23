//! What can be typed after `fanfare bench`.
//! # Invariants: what is parsed here is valid by itself.
//! # Not here: doing any of it.

use super::mark::MARK_LEN;
use super::publisher::Load;
use super::speech::{Joining, Speech};
use crate::cli::args::TrustArgs;
use crate::cli::settings::ConfigArgs;
use crate::client::endpoint::{Endpoint, Transport};
use clap::{Args, Subcommand};
use jiff::fmt::friendly::SpanParser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Longest body. With the words around it, it stays within what a broker takes by default.
const PAYLOAD_BYTES_MAX: usize = 60_000;

/// Most connections, topics or messages on the way: more than any machine has room for.
const MANY: i64 = 1_000_000;

/// Longest time that anything takes.
const TIME_MAX: Duration = Duration::from_hours(1);

const EXAMPLES: &str = "\
Examples:
  fanfare bench fanout                                 as fast as it goes, to 1,000 subscribers
  fanfare bench fanout --rate 100                      what a calm topic costs, and how late it is
  fanfare bench ticker --protocol proto --batch        1,000 topics, 2,000 subscribers
  fanfare bench idle --subscribers 15000 --json        memory of a connection, for a program
  fanfare bench fanout --address ws://10.0.0.7:7600    a broker that runs already";

/// What `fanfare bench` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// What is measured.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// What is measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Scenario {
    /// One topic, read by all subscribers
    Fanout(FanoutArgs),
    /// Many topics, of which every subscriber reads a few; messages go round the topics
    #[command(
        mut_arg("subscribers", |arg| arg.default_value("2000")),
        mut_arg("window", |arg| arg.default_value("2000"))
    )]
    Ticker(TickerArgs),
    /// Connections that do nothing: the memory of each, and the time to accept it
    Idle(IdleArgs),
    /// Connect, subscribe, close, again: the processor time of a connection's life
    Churn(ChurnArgs),
    /// A fan-out twice: all read, then some stop reading; how much later the others are served
    #[command(
        mut_arg("rate", |arg| arg.default_value("100")),
        mut_arg("payload", |arg| arg.default_value("1024")),
        mut_arg("duration", |arg| arg.default_value("4s"))
    )]
    Slow(SlowArgs),
    /// Publishing over TCP, with many publishes on the way and nobody who reads
    #[command(mut_arg("window", |arg| arg.default_value("1000")))]
    Publish(PublishingArgs),
    /// One message at a time, from a publisher to one subscriber
    Roundtrip(RoundtripArgs),
    /// Run the limit on its own: the least that a server can do
    Limit(LimitArgs),
    /// The broker that a bench measures: `serve`, which ends with the process that started it.
    #[command(hide = true)]
    Broker(ConfigArgs),
}

/// What is measured against what, and how it is told.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct SubjectArgs {
    /// Measure a broker that runs already, instead of starting one
    #[arg(long, value_name = "URL", value_parser = parse_address)]
    pub address: Option<Endpoint>,
    /// The TCP ingress of that broker; tls:// in front of it for TLS
    #[arg(long, value_name = "HOST:PORT", requires = "address", value_parser = parse_ingress)]
    pub ingress: Option<Endpoint>,
    /// Who is believed to be that broker.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// The process of that broker, whose CPU and memory are read
    #[arg(long, requires = "address", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,
    /// Threads of the broker that is started
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "address",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub shards: u16,
    /// Configuration of the broker that is started [default: none, every setting at its default]
    #[arg(long, value_name = "FILE", conflicts_with = "address")]
    pub config: Option<PathBuf>,
    /// Rounds, of which the medians are told; broker and limit take turns
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Do not measure the limit of this machine beside the broker
    #[arg(long)]
    pub no_limit: bool,
    /// Let the system choose the processors [default: the server has its own]
    #[arg(long)]
    pub no_pin: bool,
    /// Print one JSON object with every figure instead of a table
    #[arg(long)]
    pub json: bool,
}

/// How the broker is spoken to.
#[derive(Clone, Copy, Debug, Args)]
pub struct SpeechArgs {
    /// The spelling: json or proto
    #[arg(long, default_value = "json", value_parser = Protocol::parse)]
    pub protocol: Protocol,
    /// Let the broker join several messages into one
    #[arg(long)]
    pub batch: bool,
}

/// A spelling of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// JSON.
    Json,
    /// Protobuf.
    Proto,
}

impl Protocol {
    fn parse(text: &str) -> Result<Protocol, String> {
        match text {
            "json" => Ok(Protocol::Json),
            "proto" => Ok(Protocol::Proto),
            _ => Err("it is json or proto".to_owned()),
        }
    }
}

/// What is published, and how fast.
#[derive(Clone, Debug, Args)]
pub struct TrafficArgs {
    /// Subscribers
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=MANY))]
    pub subscribers: u32,
    /// Messages a second, or max
    #[arg(long, value_name = "N|max", default_value = "max", value_parser = RateWord::parse)]
    pub rate: RateWord,
    /// With --rate max: most messages that are published and not yet delivered
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub window: u64,
    /// What a run consists of.
    #[command(flatten)]
    pub run: RunArgs,
    /// How the broker is spoken to.
    #[command(flatten)]
    pub speech: SpeechArgs,
}

/// The length of messages and of runs.
#[derive(Clone, Copy, Debug, Args)]
pub struct RunArgs {
    /// Bytes of a message, without what the protocol adds
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = parse_payload)]
    pub payload: usize,
    /// Time that is measured in each round
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_time)]
    pub duration: Duration,
    /// Time before, which is not measured
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    pub warmup: Duration,
}

/// What `fanfare bench fanout` is told.
#[derive(Clone, Debug, Args)]
pub struct FanoutArgs {
    /// What is published.
    #[command(flatten)]
    pub traffic: TrafficArgs,
    /// What is measured.
    #[command(flatten)]
    pub subject: SubjectArgs,
}

/// What `fanfare bench ticker` is told.
#[derive(Clone, Debug, Args)]
pub struct TickerArgs {
    /// Topics
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub topics: u32,
    /// Topics of each subscriber
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub per_subscriber: u32,
    /// What is published.
    #[command(flatten)]
    pub traffic: TrafficArgs,
    /// What is measured.
    #[command(flatten)]
    pub subject: SubjectArgs,
}

/// What `fanfare bench slow` is told.
#[derive(Clone, Debug, Args)]
pub struct SlowArgs {
    /// The part of the subscribers that stops reading
    #[arg(long, value_name = "PART", default_value = "0.01", value_parser = parse_fraction)]
    pub fraction: f64,
    /// What is published.
    #[command(flatten)]
    pub traffic: TrafficArgs,
    /// What is measured.
    #[command(flatten)]
    pub subject: SubjectArgs,
}

/// What `fanfare bench idle` is told.
#[derive(Clone, Debug, Args)]
pub struct IdleArgs {
    /// Connections, each with one subscription
    #[arg(long, value_name = "N", default_value_t = 5000,
          value_parser = clap::value_parser!(u32).range(1..=MANY))]
    pub subscribers: u32,
    /// Time that they are left alone
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_time)]
    pub duration: Duration,
    /// How the broker is spoken to.
    #[command(flatten)]
    pub speech: SpeechArgs,
    /// What is measured.
    #[command(flatten)]
    pub subject: SubjectArgs,
}

/// What `fanfare bench churn` is told.
#[derive(Clone, Debug, Args)]
pub struct ChurnArgs {
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=MANY))]
    pub connections: u32,
    /// Time that is measured in each round
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_time)]
    pub duration: Duration,
    /// Time before, which is not measured
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_time)]
    pub warmup: Duration,
    /// How the broker is spoken to.
    #[command(flatten)]
    pub speech: SpeechArgs,
    /// What is measured.
    #[command(flatten)]
    pub subject: SubjectArgs,
}

/// What `fanfare bench publish` is told.
#[derive(Clone, Debug, Args)]
pub struct PublishingArgs {
    /// Topics; messages go round them
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=MANY))]
    pub topics: u32,
    /// Most publishes without an answer
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub window: u64,
    /// What a run consists of.
    #[command(flatten)]
    pub run: RunArgs,
    /// What is measured.
    #[command(flatten)]
    pub subject: SubjectArgs,
}

/// What `fanfare bench roundtrip` is told.
#[derive(Clone, Debug, Args)]
pub struct RoundtripArgs {
    /// What a run consists of.
    #[command(flatten)]
    pub run: RunArgs,
    /// How the broker is spoken to.
    #[command(flatten)]
    pub speech: SpeechArgs,
    /// What is measured.
    #[command(flatten)]
    pub subject: SubjectArgs,
}

/// What `fanfare bench limit` is told.
#[derive(Clone, Debug, Args)]
pub struct LimitArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9100")]
    pub address: SocketAddr,
    /// write: one write for each message and socket; coalesce: one for what came together; echo:
    /// what comes on every second connection leaves on the one before it, without WebSocket
    #[arg(long, default_value = "write", value_parser = Engine::parse)]
    pub engine: Engine,
    /// End with the process that started this.
    #[arg(long, hide = true)]
    pub child: bool,
}

/// What the limit does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// One write for each message and socket.
    Write,
    /// What came together leaves in one write for each socket.
    Coalesce,
    /// No WebSocket: what comes on every second connection leaves on the one before it.
    Echo,
}

impl Engine {
    const ALL: [Engine; 3] = [Engine::Write, Engine::Coalesce, Engine::Echo];

    fn parse(text: &str) -> Result<Engine, String> {
        let found = Engine::ALL.into_iter().find(|engine| engine.name() == text);
        found.ok_or_else(|| "it is write, coalesce or echo".to_owned())
    }

    /// As it is typed.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Engine::Write => "write",
            Engine::Coalesce => "coalesce",
            Engine::Echo => "echo",
        }
    }
}

/// A rate as it is typed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RateWord {
    /// As fast as it goes.
    Max,
    /// So many a second.
    PerSecond(f64),
}

impl RateWord {
    fn parse(text: &str) -> Result<RateWord, String> {
        let bad = || "it is max, or messages a second from 0.1 to 1000000".to_owned();
        if text == "max" {
            return Ok(RateWord::Max);
        }
        let rate: f64 = text.parse().map_err(|_| bad())?;
        if (0.1..=1e6).contains(&rate) { Ok(RateWord::PerSecond(rate)) } else { Err(bad()) }
    }
}

impl TrafficArgs {
    /// How fast is published.
    pub(super) fn load(&self) -> Load {
        match self.rate {
            RateWord::Max => Load::Window(self.window),
            RateWord::PerSecond(rate) => Load::Rate(rate),
        }
    }

    /// What the limit does to be comparable: a broker that has time writes each message by itself.
    pub(super) fn engine(&self) -> Engine {
        match self.rate {
            RateWord::Max => Engine::Coalesce,
            RateWord::PerSecond(_) => Engine::Write,
        }
    }
}

impl SpeechArgs {
    pub(super) fn speech(self) -> Speech {
        let joining = if self.batch { Joining::Batch } else { Joining::Single };
        match self.protocol {
            Protocol::Json => Speech::Json(joining),
            Protocol::Proto => Speech::Proto(joining),
        }
    }
}

fn parse_address(text: &str) -> Result<Endpoint, String> {
    let endpoint: Endpoint = text.parse().map_err(|error| format!("{error}"))?;
    match endpoint.transport {
        Transport::WebSocket => Ok(endpoint),
        _ => Err("it begins with ws:// or wss://".to_owned()),
    }
}

fn parse_ingress(text: &str) -> Result<Endpoint, String> {
    let text = if text.contains("://") { text.to_owned() } else { format!("tcp://{text}") };
    let endpoint: Endpoint = text.parse().map_err(|error| format!("{error}"))?;
    match endpoint.transport {
        Transport::Tcp => Ok(endpoint),
        _ => Err("it is HOST:PORT, perhaps behind tcp:// or tls://".to_owned()),
    }
}

fn parse_payload(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|bytes| (MARK_LEN..=PAYLOAD_BYTES_MAX).contains(bytes));
    bytes.ok_or_else(|| format!("it is from {MARK_LEN} to {PAYLOAD_BYTES_MAX} bytes"))
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = SpanParser::new().parse_unsigned_duration(text.trim());
    let time = time.map_err(|_| "it is a time such as 500ms, 3s or 1m".to_owned())?;
    if time <= TIME_MAX { Ok(time) } else { Err("it is at most 1h".to_owned()) }
}

fn parse_fraction(text: &str) -> Result<f64, String> {
    let part: Option<f64> = text.parse().ok().filter(|part| *part > 0.0 && *part < 1.0);
    part.ok_or_else(|| "it is between 0 and 1".to_owned())
}
