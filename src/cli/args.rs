//! What can be typed after `fanfare`.
//! # Invariants: what is parsed here is valid by itself.
//! # Not here: doing any of it; the flags of a broker (`settings`).

use super::bench::args::BenchArgs;
use super::probe::ProbeArgs;
use super::secret::TokenArgs;
use super::settings::{CheckArgs, ConfigArgs};
use super::token::TokenCommand;
use super::top::TopArgs;
use crate::client::Trust;
use crate::client::endpoint::{Endpoint, Transport};
use crate::dialect::{MEMBER_NAME_BYTES_MAX, Overflow, Policy};
use crate::topics::message::{Offset, Position, TTL_MAX};
use crate::topics::name::{Target, TopicName};
use crate::topics::terms::{BadRate, Rate};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use jiff::fmt::friendly::SpanParser;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Where the client commands find a broker that nobody configured.
const URL: &str = "ws://127.0.0.1:7600/ws";

const EXAMPLES: &str = "\
Examples:
  fanfare demo                                    live feeds, shown on http://127.0.0.1:7600
  fanfare subscribe 'ticker.>' --snapshot         the latest of every ticker, then live
  fanfare publish chat.lobby '{\"text\":\"hello\"}'   one message
  fanfare check                                   every setting and where it comes from
  fanfare bench fanout                            how fast it is here, and how fast it could be";

const PUBLISH_EXAMPLES: &str = "\
Examples:
  fanfare publish room.1 '{\"text\":\"hello\"}'
  fanfare publish ticker.IBM --key IBM --ttl 30s < price.json
  fanfare publish ticker.IBM --key IBM --delete
  tail -f app.log | fanfare publish log.app --lines --url tcp://127.0.0.1:7601";

const SUBSCRIBE_EXAMPLES: &str = "\
Examples:
  fanfare subscribe ticker.IBM --last 10
  fanfare subscribe 'host.*' 'ticker.>' --snapshot --max-hz 2
  fanfare subscribe room.1 --presence --name alice
  fanfare subscribe room.1 --raw --count 1";

/// A WebSocket publish/subscribe broker: no gap is ever silent.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "fanfare",
    version,
    after_help = EXAMPLES,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the broker
    Serve(ConfigArgs),
    /// Run the broker with live feeds: this host on host.*, stock prices on ticker.*
    Demo(ConfigArgs),
    /// Publish a message, or one per line
    Publish(PublishArgs),
    /// Print the messages of topics as they come
    Subscribe(SubscribeArgs),
    /// Print every setting and where it comes from, or what is wrong with one
    Check(CheckArgs),
    /// Make tokens, look into them, and hash them for a configuration
    Token(TokenCommand),
    /// Measure a broker beside the limit of this machine
    Bench(BenchArgs),
    /// Ask a broker whether it is ready: for health checks
    Probe(ProbeArgs),
    /// Watch a broker: rates, slow connections, hot topics
    Top(TopArgs),
}

impl Cli {
    /// Reads a command line, the name of the program first.
    ///
    /// # Errors
    /// What is wrong with it, or the help or version that it asks for; `exit` prints either.
    pub fn read<I, T>(arguments: I) -> Result<Cli, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let cli = Cli::try_parse_from(arguments)?;
        match &cli.command {
            Command::Subscribe(args) => args.check()?,
            Command::Publish(args) => args.check()?,
            Command::Serve(_)
            | Command::Demo(_)
            | Command::Check(_)
            | Command::Token(_)
            | Command::Bench(_)
            | Command::Probe(_)
            | Command::Top(_) => {}
        }
        Ok(cli)
    }
}

/// What `fanfare publish` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = PUBLISH_EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct PublishArgs {
    /// The broker: ws://, tcp:// or http://; with TLS wss://, tls:// or https://
    #[arg(long, default_value = URL, value_parser = parse_endpoint)]
    pub url: Endpoint,
    /// Who publishes.
    #[command(flatten)]
    pub token: TokenArgs,
    /// Who is believed, and who we are.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// The topic
    #[arg(value_parser = parse_topic)]
    pub topic: TopicName,
    /// JSON, or else text; - or nothing reads standard input
    #[arg(allow_negative_numbers = true, conflicts_with_all = ["file", "lines"])]
    pub payload: Option<String>,
    /// Read the payload from a file
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Publish each line as a message of its own
    #[arg(long, conflicts_with = "idempotency_key")]
    pub lines: bool,
    /// The form of the payload.
    #[command(flatten)]
    pub form: FormArgs,
    /// The thing that the message is about, for instance a row or a symbol
    #[arg(long)]
    pub key: Option<String>,
    /// Say that what the key names is gone, instead of a payload
    #[arg(long, conflicts_with_all = ["payload", "file", "lines", "form"])]
    pub delete: bool,
    /// How long the message may be sent for, such as 30s or 2h, at most 720h
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    pub ttl: Option<Duration>,
    /// Makes it safe to publish the same message again
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Do not print the answers
    #[arg(long, short)]
    pub quiet: bool,
}

/// The flags for TLS.
#[derive(Clone, Debug, Default, Args)]
pub struct TrustArgs {
    /// With TLS: believe the authorities in this PEM file instead of the system's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// With TLS: show this certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub client_certificate: Option<PathBuf>,
    /// The key of that certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    pub client_key: Option<PathBuf>,
}

impl TrustArgs {
    /// The same as a client takes it.
    pub fn trust(&self) -> Trust {
        let TrustArgs { ca, client_certificate, client_key } = self.clone();
        Trust { ca, certificate: client_certificate, key: client_key }
    }
}

/// The flags that name the form of a payload.
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(id = "form", multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct FormArgs {
    /// The payload is JSON, or refused
    #[arg(long)]
    json: bool,
    /// The payload is text, even if it could be JSON
    #[arg(long)]
    text: bool,
    /// The payload is base64 of bytes
    #[arg(long)]
    base64: bool,
}

/// The form of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON if it is, else text.
    Guess,
    /// JSON.
    Json,
    /// Text.
    Text,
    /// Base64 of bytes.
    Base64,
}

/// Where payloads are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// The command line.
    Argument(&'a str),
    /// A file.
    File(&'a PathBuf),
    /// Standard input.
    Stdin,
}

impl PublishArgs {
    fn check(&self) -> Result<(), clap::Error> {
        if self.delete && self.key.as_deref().unwrap_or_default().is_empty() {
            return Err(conflict("--delete needs --key, which names what is gone"));
        }
        Ok(())
    }

    /// The form of the payload.
    pub fn form(&self) -> Form {
        match self.form {
            FormArgs { json: true, .. } => Form::Json,
            FormArgs { text: true, .. } => Form::Text,
            FormArgs { base64: true, .. } => Form::Base64,
            FormArgs { .. } => Form::Guess,
        }
    }

    /// Where payloads are read from.
    pub fn input(&self) -> Input<'_> {
        match (&self.payload, &self.file) {
            (_, Some(file)) => Input::File(file),
            (Some(payload), None) if payload != "-" => Input::Argument(payload),
            (_, None) => Input::Stdin,
        }
    }
}

/// What `fanfare subscribe` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = SUBSCRIBE_EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct SubscribeArgs {
    /// The broker: ws:// or tcp://; with TLS wss:// or tls://
    #[arg(long, default_value = URL, value_parser = parse_stream)]
    pub url: Endpoint,
    /// Who subscribes.
    #[command(flatten)]
    pub token: TokenArgs,
    /// Who is believed, and who we are.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Topics or filters: * is one segment, a final > is one or more
    #[arg(required = true, value_name = "TOPIC", value_parser = parse_target)]
    pub targets: Vec<Target>,
    /// Begin with the last N messages of each topic
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub last: u32,
    /// Begin with the latest message of each topic
    #[arg(long)]
    pub snapshot: bool,
    /// Resume after this position, of one topic
    #[arg(long, value_name = "EPOCH:OFFSET", value_parser = parse_position)]
    pub since: Option<Position>,
    /// Which messages: all, latest (of each key while this reader is slow), or maxHz
    #[arg(long, value_parser = PolicyWord::parse)]
    pub policy: Option<PolicyWord>,
    /// Each topic at most N times a second, then only the latest of each key: --policy maxHz
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    pub max_hz: Option<Rate>,
    /// When this reader is too slow for all: catchUp, gap or disconnect [default: the topic's rule]
    #[arg(long, value_parser = parse_overflow, value_name = "WHAT")]
    pub overflow: Option<Overflow>,
    /// Tell who is subscribed to the topics, who joins and who leaves
    #[arg(long)]
    pub presence: bool,
    /// The name by which others see this subscriber
    #[arg(long, value_parser = parse_name)]
    pub name: Option<String>,
    /// Stop after N messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Print the payloads alone
    #[arg(long)]
    pub raw: bool,
    /// Speak protobuf instead of JSON
    #[arg(long)]
    pub proto: bool,
    /// End when the connection is lost
    #[arg(long)]
    pub no_reconnect: bool,
}

impl SubscribeArgs {
    fn check(&self) -> Result<(), clap::Error> {
        let one_topic = matches!(self.targets.as_slice(), [Target::Topic(_)]);
        if self.since.is_some() && !one_topic {
            return Err(conflict(
                "--since is a position of one topic, so it needs exactly one, without wildcards",
            ));
        }
        let has_filter = self.targets.iter().any(|target| matches!(target, Target::Filter(_)));
        if self.presence && has_filter {
            return Err(conflict("--presence is of topics, so it needs names without wildcards"));
        }
        self.check_policy()
    }

    fn check_policy(&self) -> Result<(), clap::Error> {
        match (self.policy, self.max_hz) {
            (Some(PolicyWord::MaxHz), None) => {
                return Err(conflict("--policy maxHz needs --max-hz, which says how often"));
            }
            (Some(PolicyWord::All | PolicyWord::Latest), Some(_)) => {
                return Err(conflict("--max-hz belongs to --policy maxHz, and may stand alone"));
            }
            (Some(PolicyWord::All | PolicyWord::MaxHz) | None, _)
            | (Some(PolicyWord::Latest), None) => {}
        }
        if self.overflow.is_some() && self.policy().conflates() {
            return Err(conflict(
                "--overflow is for who gets all messages; the other policies pass over some",
            ));
        }
        Ok(())
    }

    /// The policy that is asked for.
    pub fn policy(&self) -> Policy {
        match (self.policy, self.max_hz) {
            (_, Some(rate)) => Policy::MaxHz(rate),
            (Some(PolicyWord::Latest), None) => Policy::Latest,
            (_, None) => Policy::All,
        }
    }
}

/// A policy as it is typed, without its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyWord {
    /// Every message.
    All,
    /// The latest of each key while the reader is slow.
    Latest,
    /// The latest of each key, so often.
    MaxHz,
}

impl PolicyWord {
    fn parse(text: &str) -> Result<PolicyWord, String> {
        match text {
            "all" => Ok(PolicyWord::All),
            "latest" => Ok(PolicyWord::Latest),
            "maxHz" => Ok(PolicyWord::MaxHz),
            _ => Err("it is all, latest or maxHz".to_owned()),
        }
    }
}

/// Says that what was typed does not go together.
fn conflict(words: &str) -> clap::Error {
    Cli::command().error(ErrorKind::ArgumentConflict, words)
}

fn parse_endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse::<Endpoint>().map_err(|error| error.to_string())
}

fn parse_stream(text: &str) -> Result<Endpoint, String> {
    let endpoint = parse_endpoint(text)?;
    match endpoint.transport {
        Transport::WebSocket | Transport::Tcp => Ok(endpoint),
        Transport::Http => Err("messages do not come over HTTP, use ws:// or tcp://".to_owned()),
    }
}

pub(super) fn parse_topic(text: &str) -> Result<TopicName, String> {
    TopicName::parse(text).map_err(|refusal| refusal.to_string())
}

fn parse_target(text: &str) -> Result<Target, String> {
    Target::parse(text).map_err(|refusal| refusal.to_string())
}

fn parse_position(text: &str) -> Result<Position, String> {
    let (epoch, offset) =
        text.split_once(':').ok_or("a position is an epoch, a colon and an offset")?;
    let epoch = epoch.parse().map_err(|bad| format!("{bad}"))?;
    let offset = offset.parse().map_err(|_| "the offset is not a whole number")?;
    Ok(Position { epoch, offset: Offset(offset) })
}

fn parse_overflow(text: &str) -> Result<Overflow, String> {
    match text {
        "catchUp" => Ok(Overflow::CatchUp),
        "gap" => Ok(Overflow::Gap),
        "disconnect" => Ok(Overflow::Disconnect),
        _ => Err("it is catchUp, gap or disconnect".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    let hertz: f64 = text.parse().map_err(|_| BadRate.to_string())?;
    Rate::from_hz(hertz).map_err(|bad| bad.to_string())
}

fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MEMBER_NAME_BYTES_MAX {
        let len = text.len();
        return Err(format!("it is {len} bytes, a name has 1 to {MEMBER_NAME_BYTES_MAX}"));
    }
    if text.contains(char::is_control) {
        return Err("a name has no control characters".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let ttl = SpanParser::new().parse_unsigned_duration(text.trim());
    let ttl = ttl.map_err(|_| "it is a time such as 30s, 5m or 2h".to_owned())?;
    if (Duration::from_millis(1)..=TTL_MAX).contains(&ttl) {
        Ok(ttl)
    } else {
        Err("it is from 1ms to 720h".to_owned())
    }
}

#[cfg(test)]
mod tests;
