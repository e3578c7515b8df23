//! What a command line means, what it is refused for, and what its help says.
//! # Not here: what is done with it (`tests/cli.rs`).

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
              token      Make tokens, look into them, and hash them for a configuration
              bench      Measure a broker beside the limit of this machine
              probe      Ask a broker whether it is ready: for health checks
              top        Watch a broker: rates, slow connections, hot topics

            Options:
              -h, --help     Print help
              -V, --version  Print version

            Examples:
              fanfare demo                                    live feeds, shown on http://127.0.0.1:7600
              fanfare subscribe 'ticker.>' --snapshot         the latest of every ticker, then live
              fanfare publish chat.lobby '{"text":"hello"}'   one message
              fanfare check                                   every setting and where it comes from
              fanfare bench fanout                            how fast it is here, and how fast it could be
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
                  --url <URL>                  The broker: ws://, tcp:// or http://; with TLS wss://, tls:// or
                                               https:// [default: ws://127.0.0.1:7600/ws]
                  --token-file <FILE>          Show the token in this file, - for standard input [default: that
                                               in `$FANFARE_TOKEN`, if any]
                  --ca <FILE>                  With TLS: believe the authorities in this PEM file instead of the
                                               system's
                  --client-certificate <FILE>  With TLS: show this certificate, a PEM file
                  --client-key <FILE>          The key of that certificate, a PEM file
                  --file <FILE>                Read the payload from a file
                  --lines                      Publish each line as a message of its own
                  --json                       The payload is JSON, or refused
                  --text                       The payload is text, even if it could be JSON
                  --base64                     The payload is base64 of bytes
                  --key <KEY>                  The thing that the message is about, for instance a row or a
                                               symbol
                  --delete                     Say that what the key names is gone, instead of a payload
                  --ttl <TIME>                 How long the message may be sent for, such as 30s or 2h, at most
                                               720h
                  --idempotency-key <KEY>      Makes it safe to publish the same message again
              -q, --quiet                      Do not print the answers
              -h, --help                       Print help

            Examples:
              fanfare publish room.1 '{"text":"hello"}'
              fanfare publish ticker.IBM --key IBM --ttl 30s < price.json
              fanfare publish ticker.IBM --key IBM --delete
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
                  --url <URL>                  The broker: ws:// or tcp://; with TLS wss:// or tls:// [default:
                                               ws://127.0.0.1:7600/ws]
                  --token-file <FILE>          Show the token in this file, - for standard input [default: that
                                               in `$FANFARE_TOKEN`, if any]
                  --ca <FILE>                  With TLS: believe the authorities in this PEM file instead of the
                                               system's
                  --client-certificate <FILE>  With TLS: show this certificate, a PEM file
                  --client-key <FILE>          The key of that certificate, a PEM file
                  --last <N>                   Begin with the last N messages of each topic
                  --snapshot                   Begin with the latest message of each topic
                  --since <EPOCH:OFFSET>       Resume after this position, of one topic
                  --policy <POLICY>            Which messages: all, latest (of each key while this reader is
                                               slow), or maxHz
                  --max-hz <N>                 Each topic at most N times a second, then only the latest of each
                                               key: --policy maxHz
                  --overflow <WHAT>            When this reader is too slow for all: catchUp, gap or disconnect
                                               [default: the topic's rule]
                  --presence                   Tell who is subscribed to the topics, who joins and who leaves
                  --name <NAME>                The name by which others see this subscriber
                  --count <N>                  Stop after N messages
                  --raw                        Print the payloads alone
                  --proto                      Speak protobuf instead of JSON
                  --no-reconnect               End when the connection is lost
              -h, --help                       Print help

            Examples:
              fanfare subscribe ticker.IBM --last 10
              fanfare subscribe 'host.*' 'ticker.>' --snapshot --max-hz 2
              fanfare subscribe room.1 --presence --name alice
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
fn bench_explains_itself() {
    check_help(
        &["bench"],
        &expect![[r"
        Measure a broker beside the limit of this machine

        Usage: fanfare bench <COMMAND>

        Commands:
          fanout     One topic, read by all subscribers
          ticker     Many topics, of which every subscriber reads a few; messages go round the topics
          idle       Connections that do nothing: the memory of each, and the time to accept it
          churn      Connect, subscribe, close, again: the processor time of a connection's life
          slow       A fan-out twice: all read, then some stop reading; how much later the others are served
          publish    Publishing over TCP, with many publishes on the way and nobody who reads
          roundtrip  One message at a time, from a publisher to one subscriber
          limit      Run the limit on its own: the least that a server can do

        Options:
          -h, --help  Print help

        Examples:
          fanfare bench fanout                                 as fast as it goes, to 1,000 subscribers
          fanfare bench fanout --rate 100                      what a calm topic costs, and how late it is
          fanfare bench ticker --protocol proto --batch        1,000 topics, 2,000 subscribers
          fanfare bench idle --subscribers 15000 --json        memory of a connection, for a program
          fanfare bench fanout --address ws://10.0.0.7:7600    a broker that runs already
    "]],
    );
    check_help(
        &["bench", "slow"],
        &expect![[r"
            A fan-out twice: all read, then some stop reading; how much later the others are served

            Usage: fanfare bench slow [OPTIONS]

            Options:
                  --fraction <PART>            The part of the subscribers that stops reading [default: 0.01]
                  --subscribers <N>            Subscribers [default: 1000]
                  --rate <N|max>               Messages a second, or max [default: 100]
                  --window <N>                 With --rate max: most messages that are published and not yet
                                               delivered [default: 64]
                  --payload <BYTES>            Bytes of a message, without what the protocol adds [default:
                                               1024]
                  --duration <TIME>            Time that is measured in each round [default: 4s]
                  --warmup <TIME>              Time before, which is not measured [default: 1s]
                  --protocol <PROTOCOL>        The spelling: json or proto [default: json]
                  --batch                      Let the broker join several messages into one
                  --address <URL>              Measure a broker that runs already, instead of starting one
                  --ingress <HOST:PORT>        The TCP ingress of that broker; tls:// in front of it for TLS
                  --ca <FILE>                  With TLS: believe the authorities in this PEM file instead of the
                                               system's
                  --client-certificate <FILE>  With TLS: show this certificate, a PEM file
                  --client-key <FILE>          The key of that certificate, a PEM file
                  --pid <PID>                  The process of that broker, whose CPU and memory are read
                  --shards <N>                 Threads of the broker that is started [default: 1]
                  --config <FILE>              Configuration of the broker that is started [default: none, every
                                               setting at its default]
                  --rounds <N>                 Rounds, of which the medians are told; broker and limit take
                                               turns [default: 3]
                  --no-limit                   Do not measure the limit of this machine beside the broker
                  --no-pin                     Let the system choose the processors [default: the server has its
                                               own]
                  --json                       Print one JSON object with every figure instead of a table
              -h, --help                       Print help
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
    assert_eq!((args.overflow, args.policy()), (Some(Overflow::Disconnect), Policy::All));
    assert_eq!(args.url.to_string(), URL);
    let args = subscribe(&["subscribe", "a.*", ">", "--url", "tcp://h", "--count", "2"]);
    assert_eq!((args.targets.len(), args.count), (2, Some(2)));
    assert_eq!(args.url.to_string(), "tcp://h:7601");
}

#[test]
fn a_policy_is_a_word_or_a_rate() {
    let ten = Policy::MaxHz(Rate::from_hz(10.0).expect("a rate"));
    let cases: [(&[&str], Policy); 5] = [
        (&[], Policy::All),
        (&["--policy", "all", "--overflow", "gap"], Policy::All),
        (&["--policy", "latest"], Policy::Latest),
        (&["--max-hz", "10"], ten),
        (&["--policy", "maxHz", "--max-hz", "10.0"], ten),
    ];
    for (flags, expected) in cases {
        let args = subscribe(&[&["subscribe", "a"], flags].concat());
        assert_eq!(args.policy(), expected, "{flags:?}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let since = "AAAAAAAAAAAAAAAAAAAAAA:1";
    let long = "n".repeat(65);
    let cases: [(&[&str], &str); 37] = [
        (&["publish"], "required arguments were not provided"),
        (&["publish", "a.*"], "a topic name has no wildcards"),
        (&["publish", "a", "1", "--file", "f"], "cannot be used with"),
        (&["publish", "a", "1", "--lines"], "cannot be used with"),
        (&["publish", "a", "--quite"], "a similar argument exists: '--quiet'"),
        (&["publish", "a", "--json", "--text"], "cannot be used with"),
        (&["publish", "a", "--lines", "--idempotency-key", "k"], "cannot be used with"),
        (&["publish", "a", "--url", "mqtts://h"], "it begins with none of"),
        (&["publish", "a", "--client-key", "k.pem"], "--client-certificate"),
        (&["subscribe"], "required arguments were not provided"),
        (&["subscribe", "a..b"], "it has an empty segment"),
        (&["subscribe", "a", "--url", "http://h"], "messages do not come over HTTP"),
        (&["subscribe", "a.*", "--since", since], "without wildcards"),
        (&["subscribe", "a", "b", "--since", since], "exactly one"),
        (&["subscribe", "a", "--since", "x:1"], "an epoch has 22 characters"),
        (&["subscribe", "a", "--count", "0"], "0 is not in 1.."),
        (&["subscribe", "a", "--policy", "some"], "it is all, latest or maxHz"),
        (&["subscribe", "a", "--policy", "maxHz"], "needs --max-hz"),
        (&["subscribe", "a", "--policy", "latest", "--max-hz", "1"], "may stand alone"),
        (&["subscribe", "a", "--policy", "all", "--max-hz", "1"], "may stand alone"),
        (&["subscribe", "a", "--max-hz", "0"], "from 0.01 to 1000"),
        (&["subscribe", "a", "--max-hz=-1"], "from 0.01 to 1000"),
        (&["subscribe", "a", "--max-hz", "1001"], "from 0.01 to 1000"),
        (&["subscribe", "a", "--max-hz", "NaN"], "from 0.01 to 1000"),
        (&["subscribe", "a", "--max-hz", "often"], "from 0.01 to 1000"),
        (&["subscribe", "a", "--overflow", "shrug"], "it is catchUp, gap or disconnect"),
        (&["subscribe", "a", "--overflow", "gap", "--max-hz", "1"], "for who gets all"),
        (&["subscribe", "a", "--overflow", "gap", "--policy", "latest"], "for who gets all"),
        (&["subscribe", "a.*", "--presence"], "without wildcards"),
        (&["subscribe", "a", "--name", &long], "it is 65 bytes, a name has 1 to 64"),
        (&["subscribe", "a", "--name", "a\tb"], "no control characters"),
        (&["publish", "a", "--delete"], "--delete needs --key"),
        (&["publish", "a", "1", "--delete", "--key", "k"], "cannot be used with"),
        (&["publish", "a", "--lines", "--delete", "--key", "k"], "cannot be used with"),
        (&["publish", "a", "--json", "--delete", "--key", "k"], "cannot be used with"),
        (&["publish", "a", "1", "--ttl", "soon"], "it is a time such as"),
        (&["publish", "a", "1", "--ttl", "721h"], "it is from 1ms to 720h"),
    ];
    for (line, expected) in cases {
        let words = refused(line);
        assert!(words.contains(expected), "{line:?}: {words}");
    }
}
