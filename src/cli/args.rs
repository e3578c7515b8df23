//! What can be typed after `fanfare`.
//! # Invariants: what is parsed here is valid by itself.
//! # Not here: doing any of it; the flags of a broker (`settings`).

use super::endpoint::{Endpoint, Transport};
use super::settings::{CheckArgs, ConfigArgs};
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
    /// Begin with the latest message of each topic
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
        _ => Err("it is gap or disconnect".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn read(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::read(std::iter::once("fanfare").chain(line.iter().copied()))
    }

    fn refused(line: &[&str]) -> String {
        read(line).expect_err("must be refused").to_string()
    }

    fn publish(line: &[&str]) -> PublishArgs {
        match read(line).expect("a sound line").command {
            Command::Publish(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn subscribe(line: &[&str]) -> SubscribeArgs {
        match read(line).expect("a sound line").command {
            Command::Subscribe(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn clients_look_where_a_broker_listens() {
        assert_eq!(URL, format!("ws://{}/ws", crate::config::Listen::default().public));
    }

    fn check_help(line: &[&str], expected: &Expect) {
        // The width of the terminal must not decide over the test.
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut found = &mut command;
        for name in line {
            found = found.find_subcommand_mut(name).expect("a subcommand");
        }
        expected.assert_eq(&found.render_help().to_string());
    }

    #[test]
    fn the_first_help_fits_a_screen_and_shows_examples() {
        check_help(
            &[],
            &expect![[r#"
            A WebSocket publish/subscribe broker: no gap is ever silent

            Usage: fanfare <COMMAND>

            Commands:
              serve      Run the broker
              demo       Run the broker with live feeds: this host on host.*, stock prices on ticker.*
              publish    Publish a message, or one per line
              subscribe  Print the messages of topics as they come
              check      Print every setting and where it comes from, or what is wrong with one

            Options:
              -h, --help     Print help
              -V, --version  Print version

            Examples:
              fanfare demo                                    live feeds, shown on http://127.0.0.1:7600
              fanfare subscribe 'ticker.>' --snapshot         the latest of every ticker, then live
              fanfare publish chat.lobby '{"text":"hello"}'   one message
              fanfare check                                   every setting and where it comes from
        "#]],
        );
    }

    #[test]
    fn publish_explains_itself() {
        check_help(
            &["publish"],
            &expect![[r#"
                Publish a message, or one per line

                Usage: fanfare publish [OPTIONS] <TOPIC> [PAYLOAD]

                Arguments:
                  <TOPIC>    The topic
                  [PAYLOAD]  JSON, or else text; - or nothing reads standard input

                Options:
                      --url <URL>              The broker: ws://, tcp:// or http:// [default:
                                               ws://127.0.0.1:7600/ws]
                      --file <FILE>            Read the payload from a file
                      --lines                  Publish each line as a message of its own
                      --json                   The payload is JSON, or refused
                      --text                   The payload is text, even if it could be JSON
                      --base64                 The payload is base64 of bytes
                      --key <KEY>              The thing that the message is about, for instance a row or a symbol
                      --idempotency-key <KEY>  Makes it safe to publish the same message again
                  -q, --quiet                  Do not print the answers
                  -h, --help                   Print help

                Examples:
                  fanfare publish room.1 '{"text":"hello"}'
                  fanfare publish ticker.IBM --key IBM < price.json
                  tail -f app.log | fanfare publish log.app --lines --url tcp://127.0.0.1:7601
            "#]],
        );
    }

    #[test]
    fn subscribe_explains_itself() {
        check_help(
            &["subscribe"],
            &expect![[r"
            Print the messages of topics as they come

            Usage: fanfare subscribe [OPTIONS] <TOPIC>...

            Arguments:
              <TOPIC>...  Topics or filters: * is one segment, a final > is one or more

            Options:
                  --url <URL>             The broker: ws:// or tcp:// [default: ws://127.0.0.1:7600/ws]
                  --last <N>              Begin with the last N messages of each topic
                  --snapshot              Begin with the latest message of each topic
                  --since <EPOCH:OFFSET>  Resume after this position, of one topic
                  --overflow <POLICY>     When this reader is too slow: gap tells what is left out, disconnect
                                          closes [default: gap]
                  --count <N>             Stop after N messages
                  --raw                   Print the payloads alone
                  --proto                 Speak protobuf instead of JSON
              -h, --help                  Print help

            Examples:
              fanfare subscribe ticker.IBM --last 10
              fanfare subscribe 'host.*' 'ticker.>' --snapshot
              fanfare subscribe room.1 --raw --count 1
        "]],
        );
    }

    #[test]
    fn check_explains_itself() {
        check_help(
            &["check"],
            &expect![[r"
            Print every setting and where it comes from, or what is wrong with one

            Usage: fanfare check [OPTIONS]

            Options:
                  --config <FILE>        Configuration file [default: ./fanfare.toml, if it is there]
                  --listen <ADDR>        WebSocket, publish API and dashboard [default: 127.0.0.1:7600]
                  --ingress <ADDR|off>   TCP ingress, or off [default: 127.0.0.1:7601]
                  --admin <ADDR|off>     Metrics and health, or off [default: 127.0.0.1:7602]
                  --shards <N>           Threads that own connections [default: one per processor]
                  --insecure             Serve other machines although nobody has to prove who they are
                  --log-format <FORMAT>  auto, text or json [default: auto: text on a terminal, json elsewhere]
                  --log-level <LEVEL>    error, warn, info, debug or trace [default: info]
                  --topic <NAME>         Tell which rule this topic has and what it means for it; may be
                                         repeated
              -h, --help                 Print help
        "]],
        );
    }

    #[test]
    fn a_payload_comes_from_one_place_in_one_form() {
        let file = PathBuf::from("f");
        let cases = [
            (&["publish", "a", "1"][..], Input::Argument("1"), Form::Guess),
            (&["publish", "a", "-1", "--json"], Input::Argument("-1"), Form::Json),
            (&["publish", "a", "-"], Input::Stdin, Form::Guess),
            (&["publish", "a", "--text"], Input::Stdin, Form::Text),
            (&["publish", "a", "--lines"], Input::Stdin, Form::Guess),
            (&["publish", "a", "--file", "f", "--base64"], Input::File(&file), Form::Base64),
            (&["publish", "a", "--file", "f", "--lines"], Input::File(&file), Form::Guess),
        ];
        for (line, input, form) in cases {
            let args = publish(line);
            assert_eq!((args.input(), args.form()), (input, form), "{line:?}");
        }
    }

    #[test]
    fn subscriptions_are_parsed_at_the_edge() {
        let epoch = "AAAAAAAAAAAAAAAAAAAAAA";
        let since = format!("{epoch}:41");
        let args = subscribe(&["subscribe", "a.b", "--since", &since, "--overflow", "disconnect"]);
        let position = args.since.expect("a position");
        assert_eq!((position.epoch.to_string().as_str(), position.offset.0), (epoch, 41));
        assert_eq!(args.overflow, Overflow::Disconnect);
        assert_eq!(args.url.to_string(), URL);
        let args = subscribe(&["subscribe", "a.*", ">", "--url", "tcp://h", "--count", "2"]);
        assert_eq!((args.targets.len(), args.count), (2, Some(2)));
        assert_eq!(args.url.to_string(), "tcp://h:7601");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        let since = "AAAAAAAAAAAAAAAAAAAAAA:1";
        let cases: [(&[&str], &str); 15] = [
            (&["publish"], "required arguments were not provided"),
            (&["publish", "a.*"], "a topic name has no wildcards"),
            (&["publish", "a", "1", "--file", "f"], "cannot be used with"),
            (&["publish", "a", "1", "--lines"], "cannot be used with"),
            (&["publish", "a", "--quite"], "a similar argument exists: '--quiet'"),
            (&["publish", "a", "--json", "--text"], "cannot be used with"),
            (&["publish", "a", "--lines", "--idempotency-key", "k"], "cannot be used with"),
            (&["publish", "a", "--url", "wss://h"], "TLS is not spoken yet"),
            (&["subscribe"], "required arguments were not provided"),
            (&["subscribe", "a..b"], "it has an empty segment"),
            (&["subscribe", "a", "--url", "http://h"], "messages do not come over http://"),
            (&["subscribe", "a.*", "--since", since], "without wildcards"),
            (&["subscribe", "a", "b", "--since", since], "exactly one"),
            (&["subscribe", "a", "--since", "x:1"], "an epoch has 22 characters"),
            (&["subscribe", "a", "--count", "0"], "0 is not in 1.."),
        ];
        for (line, expected) in cases {
            let words = refused(line);
            assert!(words.contains(expected), "{line:?}: {words}");
        }
    }
}
