//! What can be typed after `fanfare`.
//! # Invariants: what is parsed here is valid by itself; only the settings of a broker stay text,
//! because the configuration reads them in the same way wherever they come from.
//! # Not here: doing any of it.

use super::endpoint::{Endpoint, Transport};
use crate::config::{ConfigError, Flag, Loaded, Sources, load};
use crate::dialect::Overflow;
use crate::topics::message::{Offset, Position};
use crate::topics::name::{Target, TopicName};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Where the client commands find a broker that nobody configured.
const URL: &str = "ws://127.0.0.1:7600/ws";

const EXAMPLES: &str = "\
Examples:
  fanfare demo                                    live feeds, shown on http://127.0.0.1:7600
  fanfare subscribe 'ticker.>' --snapshot         the latest of every ticker, then live
  fanfare publish chat.lobby '{\"text\":\"hello\"}'   one message
  fanfare check                                   every setting and where it comes from";

const PUBLISH_EXAMPLES: &str = "\
Examples:
  fanfare publish room.1 '{\"text\":\"hello\"}'
  fanfare publish ticker.IBM --key IBM < price.json
  tail -f app.log | fanfare publish log.app --lines --url tcp://127.0.0.1:7601";

const SUBSCRIBE_EXAMPLES: &str = "\
Examples:
  fanfare subscribe ticker.IBM --last 10
  fanfare subscribe 'host.*' 'ticker.>' --snapshot
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
            Command::Serve(_) | Command::Demo(_) | Command::Publish(_) | Command::Check(_) => {}
        }
        Ok(cli)
    }
}

// === Settings ===

/// The settings that have a flag of their own.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file [default: ./fanfare.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// WebSocket, publish API and dashboard [default: 127.0.0.1:7600]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// TCP ingress, or off [default: 127.0.0.1:7601]
    #[arg(long, value_name = "ADDR|off")]
    pub ingress: Option<String>,
    /// Metrics and health, or off [default: 127.0.0.1:7602]
    #[arg(long, value_name = "ADDR|off")]
    pub admin: Option<String>,
    /// Threads that own connections [default: one per processor]
    #[arg(long, value_name = "N")]
    pub shards: Option<String>,
    /// Serve other machines although nobody has to prove who they are
    #[arg(long)]
    pub insecure: bool,
    /// auto, text or json [default: auto: text on a terminal, json elsewhere]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl ConfigArgs {
    /// The settings that were given.
    pub fn flags(&self) -> Vec<Flag> {
        let insecure = self.insecure.then(|| "true".to_owned());
        let flags = [
            ("--listen", "listen.public", &self.listen),
            ("--ingress", "listen.ingress", &self.ingress),
            ("--admin", "listen.admin", &self.admin),
            ("--shards", "shards", &self.shards),
            ("--insecure", "insecure", &insecure),
            ("--log-format", "log.format", &self.log_format),
            ("--log-level", "log.level", &self.log_level),
        ];
        let given = flags.into_iter().filter_map(|(name, key, value)| {
            let value = value.clone()?;
            Some(Flag { name, key, value })
        });
        given.collect()
    }

    /// The configuration of this process: defaults, file, variables, and these flags.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        load(Sources::gather(self.config.as_deref(), self.flags())?)
    }
}

/// What `fanfare check` is told.
#[derive(Clone, Debug, Default, Args)]
pub struct CheckArgs {
    /// The settings of the broker that is meant.
    #[command(flatten)]
    pub settings: ConfigArgs,
    /// Tell which rule decides over this topic
    #[arg(long, value_name = "NAME", value_parser = parse_topic)]
    pub topic: Option<TopicName>,
}

// === Clients ===

/// What `fanfare publish` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = PUBLISH_EXAMPLES)]
pub struct PublishArgs {
    /// The broker: ws://, tcp:// or http://
    #[arg(long, default_value = URL, value_parser = parse_endpoint)]
    pub url: Endpoint,
    /// The topic
    #[arg(value_parser = parse_topic)]
    pub topic: TopicName,
    /// JSON, or else text; - or nothing reads standard input
    #[arg(allow_hyphen_values = true, conflicts_with_all = ["file", "lines"])]
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
    /// A snapshot holds the latest message of each key
    #[arg(long)]
    pub key: Option<String>,
    /// Makes it safe to publish the same message again
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Do not print the answers
    #[arg(long, short)]
    pub quiet: bool,
}

/// The flags that name the form of a payload.
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(multiple = false)]
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
    /// The broker: ws:// or tcp://
    #[arg(long, default_value = URL, value_parser = parse_stream)]
    pub url: Endpoint,
    /// Topics or filters: * is one segment, a final > is one or more
    #[arg(required = true, value_name = "TOPIC", value_parser = parse_target)]
    pub targets: Vec<Target>,
    /// Begin with the last N messages of each topic
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub last: u32,
    /// Begin with the latest message of each topic and key
    #[arg(long)]
    pub snapshot: bool,
    /// Resume after this position, of one topic
    #[arg(long, value_name = "EPOCH:OFFSET", value_parser = parse_position)]
    pub since: Option<Position>,
    /// When this reader is too slow: gap tells what is left out, disconnect closes
    #[arg(long, default_value = "gap", value_parser = parse_overflow, value_name = "POLICY")]
    pub overflow: Overflow,
    /// Stop after N messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Print the payloads alone
    #[arg(long)]
    pub raw: bool,
    /// Speak protobuf instead of JSON
    #[arg(long)]
    pub proto: bool,
}

impl SubscribeArgs {
    fn check(&self) -> Result<(), clap::Error> {
        let one_topic = matches!(self.targets.as_slice(), [Target::Topic(_)]);
        if self.since.is_some() && !one_topic {
            let words =
                "--since is a position of one topic, so it needs exactly one, without wildcards";
            return Err(Cli::command().error(ErrorKind::ArgumentConflict, words));
        }
        Ok(())
    }
}

fn parse_endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse::<Endpoint>().map_err(|error| error.to_string())
}

fn parse_stream(text: &str) -> Result<Endpoint, String> {
    let endpoint = parse_endpoint(text)?;
    match endpoint.transport {
        Transport::WebSocket | Transport::Tcp => Ok(endpoint),
        Transport::Http => Err("messages do not come over http://, use ws:// or tcp://".to_owned()),
    }
}

fn parse_topic(text: &str) -> Result<TopicName, String> {
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
        "gap" => Ok(Overflow::Gap),
        "disconnect" => Ok(Overflow::Disconnect),
        _ => Err("it is gap or disconnect".to_owned()),
    }
}
