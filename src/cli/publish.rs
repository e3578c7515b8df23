//! `fanfare publish`: one message, or one per line of an endless input.
//! # Invariants: of many lines at most [`WINDOW`] wait for their answers; every line that is not
//! published is told with its number; without an answer nothing is said to be published.
//! # Not here: forms of payloads (`payload`); connections, and sending again when one is lost
//! (`client`).

use super::args::{Input, PublishArgs};
use super::error::CommandError;
use super::payload::{self, Source};
use crate::client::{Answer, Client, Payload, Published, Publishing};
use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Most lines that are sent and not yet answered.
const WINDOW: usize = 1_000;

/// Lines that are read ahead of sending.
const LINES_MAX: usize = 16;

/// Time for an answer. After it nobody knows whether the message is published.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Publishes, and prints where.
pub(super) fn run(args: &PublishArgs) -> ExitCode {
    super::end(prepare(args).and_then(|work| super::block_on(work.run(args))))
}

/// What there is to publish.
enum Work {
    /// Without a payload it is a delete.
    One(Option<Payload>),
    Lines(Source),
}

/// Finds what is wrong with the input before anybody is connected to.
fn prepare(args: &PublishArgs) -> Result<Work, CommandError> {
    if args.delete {
        return Ok(Work::One(None));
    }
    let input = args.input();
    let mut source = Source::open(&input)?;
    if args.lines {
        return Ok(Work::Lines(source));
    }
    let mut bytes = source.read()?;
    match input {
        Input::Argument(_) => {}
        Input::File(_) | Input::Stdin => payload::cut_line_break(&mut bytes),
    }
    payload::form(args.form(), bytes).map(Some).map(Work::One)
}

impl Work {
    async fn run(self, args: &PublishArgs) -> Result<(), CommandError> {
        let mut client = Client::at(args.url.clone())
            .trust(args.trust.trust())
            .queue(WINDOW)
            .answer(ANSWER_TIMEOUT);
        if let Some(token) = args.token.token()? {
            client = client.token(token.reveal());
        }
        let client = client.open().await?;
        match self {
            Work::One(payload) => {
                let answer = draft(args, &client, payload).send()?;
                print(args, &published(answer).await?)?;
            }
            Work::Lines(source) => lines(args, &client, source).await?,
        }
        client.close().await;
        Ok(())
    }
}

/// What is to be published; without a payload it is a delete.
fn draft(args: &PublishArgs, client: &Client, payload: Option<Payload>) -> Publishing {
    let mut draft = client.publish(args.topic.as_str());
    draft = match payload {
        Some(payload) => draft.payload(payload),
        None => draft.delete(),
    };
    if let Some(key) = &args.key {
        draft = draft.key(key);
    }
    if let Some(key) = &args.idempotency_key {
        draft = draft.idempotency_key(key);
    }
    match args.ttl {
        Some(ttl) => draft.ttl(ttl),
        None => draft,
    }
}

/// Waits for the answer to a publish, which may come from the next connection.
async fn published(answer: Answer) -> Result<Published, CommandError> {
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CommandError::Unknown(ANSWER_TIMEOUT)),
    }
}

fn print(args: &PublishArgs, published: &Published) -> Result<(), CommandError> {
    if args.quiet {
        return Ok(());
    }
    Ok(super::put(answer_line(args.topic.as_str(), published).as_bytes())?)
}

fn answer_line(topic: &str, Published { position, durability, .. }: &Published) -> String {
    let (offset, epoch, durability) = (position.offset, position.epoch, durability.name());
    format!("{topic} offset {offset} epoch {epoch} durability {durability}\n")
}

// === Lines ===

/// What has become of the lines so far.
#[derive(Default)]
struct Tally {
    refused: u64,
    total: u64,
}

impl Tally {
    fn refuse(&mut self, number: u64, error: &CommandError) {
        self.refused += 1;
        super::tell(&format!("error: line {number}: {error}"));
    }
}

/// A line that is sent: its number, and what will be known of it.
type Sent = (u64, Answer);

async fn lines(args: &PublishArgs, client: &Client, source: Source) -> Result<(), CommandError> {
    let (lines, mut read) = mpsc::channel(LINES_MAX);
    tokio::task::spawn_blocking(move || read_lines(source, &lines));
    let mut waiting: VecDeque<Sent> = VecDeque::new();
    let mut tally = Tally::default();
    let mut open = true;
    while open || !waiting.is_empty() {
        let room = open && waiting.len() < WINDOW;
        let done = tokio::select! {
            line = read.recv(), if room => {
                open = line.is_some();
                let sent = line.map(|line| send_line(args, client, line, &mut tally));
                sent.transpose().map(|sent| waiting.extend(sent.flatten()))
            }
            answer = first(&mut waiting), if !waiting.is_empty() => {
                take_answer(args, answer, &mut tally)
            }
        };
        if let Err(error) = done {
            if !waiting.is_empty() {
                let unknown = waiting.len();
                super::tell(&format!(
                    "{unknown} lines have no answer: they may or may not be published"
                ));
            }
            return Err(error);
        }
    }
    let Tally { refused, total } = tally;
    if refused > 0 { Err(CommandError::Incomplete { refused, total }) } else { Ok(()) }
}

/// Sends a line, unless something is wrong with it.
fn send_line(
    args: &PublishArgs,
    client: &Client,
    line: Result<Vec<u8>, CommandError>,
    tally: &mut Tally,
) -> Result<Option<Sent>, CommandError> {
    tally.total += 1;
    match line.and_then(|line| payload::form(args.form(), line)) {
        Ok(payload) => Ok(Some((tally.total, draft(args, client, Some(payload)).send()?))),
        Err(error @ CommandError::Input { .. }) => Err(error),
        Err(error) => {
            tally.refuse(tally.total, &error);
            Ok(None)
        }
    }
}

/// Waits for the answer to the oldest line. Answers come in the order of the lines.
async fn first(waiting: &mut VecDeque<Sent>) -> (u64, Result<Published, CommandError>) {
    let Some((number, answer)) = waiting.front_mut() else { return std::future::pending().await };
    let answer = match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(CommandError::Unknown(ANSWER_TIMEOUT)),
    };
    let number = *number;
    waiting.pop_front();
    (number, answer)
}

fn take_answer(
    args: &PublishArgs,
    (number, answer): (u64, Result<Published, CommandError>),
    tally: &mut Tally,
) -> Result<(), CommandError> {
    match answer {
        Ok(published) => print(args, &published),
        // What the broker says of one line; anything else is about all of them.
        Err(CommandError::Client(error)) if (100..1000).contains(&error.code()) => {
            tally.refuse(number, &error.into());
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Reads on a thread of its own, because a pipe may be silent for hours.
fn read_lines(mut source: Source, lines: &mpsc::Sender<Result<Vec<u8>, CommandError>>) {
    while let Some(line) = source.read_line().transpose() {
        // Nobody takes lines any more once the command has failed.
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};

    fn args(line: &[&str]) -> PublishArgs {
        let cli = Cli::read(["fanfare", "publish"].iter().chain(line)).expect("valid line");
        let Command::Publish(args) = cli.command else { panic!("{line:?}") };
        args
    }

    #[test]
    fn a_line_break_at_the_end_is_cut_from_a_file_and_kept_in_an_argument() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("payload");
        std::fs::write(&path, "hello\n\n").expect("writable");
        let path = path.to_str().expect("UTF-8");
        for (line, expected) in
            [(&["a", "hello\n"][..], "hello\n"), (&["a", "--file", path], "hello\n")]
        {
            match prepare(&args(line)) {
                Ok(Work::One(payload)) => {
                    assert_eq!(payload, Some(Payload::Text(expected.to_owned())));
                }
                Ok(Work::Lines(_)) => panic!("lines"),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[tokio::test]
    async fn a_draft_carries_the_topic_both_keys_the_time_to_live_and_the_payload() {
        let client = Client::connect("tcp://127.0.0.1:9").start().expect("a client");
        let args = args(&["a.b", "x", "--key", "k", "--idempotency-key", "i", "--ttl", "1m 30s"]);
        let drafted = draft(&args, &client, Some(Payload::Text("x".into())));
        let expected = client
            .publish("a.b")
            .text("x")
            .key("k")
            .idempotency_key("i")
            .ttl(Duration::from_secs(90));
        assert_eq!(format!("{drafted:?}"), format!("{expected:?}"));
    }

    #[tokio::test]
    async fn a_delete_has_a_key_and_no_payload() {
        let client = Client::connect("tcp://127.0.0.1:9").start().expect("a client");
        let args = args(&["a.b", "--key", "k", "--delete"]);
        let Ok(Work::One(None)) = prepare(&args) else { panic!("it reads a payload") };
        let expected = client.publish("a.b").key("k").delete();
        assert_eq!(format!("{:?}", draft(&args, &client, None)), format!("{expected:?}"));
    }
}
