//! `fanfare publish`: one message, or one per line of an endless input.
//! # Invariants: of many lines at most [`WINDOW`] wait for their answers; every line that is not
//! published is told with its number; without an answer nothing is said to be published.
//! # Not here: forms of payloads (`payload`), connections (`client`).

use super::args::{Input, PublishArgs};
use super::client::{ClientError, Connection, Receiver, Sender, explain};
use super::payload::{self, Source};
use crate::dialect::Dialect;
use crate::dialect::schema::{self, command::Action, event::Body, publish::Payload};
use std::cell::Cell;
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// Most lines that are sent and not yet answered.
const WINDOW: u32 = 1_000;

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
fn prepare(args: &PublishArgs) -> Result<Work, ClientError> {
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
    async fn run(self, args: &PublishArgs) -> Result<(), ClientError> {
        let shown = (&args.trust, args.token.token()?);
        let connection = Connection::open(&args.url, Dialect::Json, shown).await?;
        match self {
            Work::One(payload) => one(args, connection, payload).await,
            Work::Lines(source) => lines(args, connection, source).await,
        }
    }
}

fn command(args: &PublishArgs, id: u64, payload: Option<Payload>) -> schema::Command {
    let ttl_ms = args.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let publish = schema::Publish {
        topic: args.topic.as_str().to_owned(),
        delete: payload.is_none(),
        payload,
        key: args.key.clone().unwrap_or_default(),
        idempotency_key: args.idempotency_key.clone().unwrap_or_default(),
        ttl_ms,
    };
    schema::Command { id, action: Some(Action::Publish(publish)) }
}

async fn one(
    args: &PublishArgs,
    connection: Connection,
    payload: Option<Payload>,
) -> Result<(), ClientError> {
    let Connection { mut sender, mut receiver } = connection;
    let answer = async {
        let sent = sender.send(command(args, 1, payload)).await;
        let answer = async { next_answer(&mut receiver).await?.1 };
        match sent {
            Ok(()) => answer.await,
            Err(error) => Err(explain(error, answer).await),
        }
    };
    let answer = timeout(ANSWER_TIMEOUT, answer).await;
    let published = answer.map_err(|_| ClientError::Unknown(ANSWER_TIMEOUT))??;
    print(args, &published)?;
    sender.close().await;
    Ok(())
}

/// Waits for the answer to a publish: its id, and the position or the refusal.
async fn next_answer(
    receiver: &mut Receiver,
) -> Result<(u64, Result<schema::Published, ClientError>), ClientError> {
    loop {
        let event = receiver.next().await?;
        match event.body {
            Some(Body::Published(published)) => return Ok((event.id, Ok(published))),
            Some(Body::Error(error)) => return Ok((event.id, Err(super::refused(error)))),
            // Pings, and what a newer server may say unasked.
            _ => {}
        }
    }
}

fn print(args: &PublishArgs, published: &schema::Published) -> Result<(), ClientError> {
    if args.quiet {
        return Ok(());
    }
    Ok(super::put(answer_line(args.topic.as_str(), published).as_bytes())?)
}

fn answer_line(topic: &str, published: &schema::Published) -> String {
    let durability = published.durability().as_str_name().to_ascii_lowercase();
    let schema::Published { epoch, offset, .. } = published;
    format!("{topic} offset {offset} epoch {epoch} durability {durability}\n")
}

// === Lines ===

/// What the sending and the receiving side of many lines know of each other.
struct Window {
    /// A permit for each line that may still be sent before an answer comes.
    free: Semaphore,
    refused: Cell<u64>,
    total: Cell<u64>,
}

async fn lines(
    args: &PublishArgs,
    connection: Connection,
    source: Source,
) -> Result<(), ClientError> {
    let Connection { mut sender, mut receiver } = connection;
    let window = Window {
        free: Semaphore::new(WINDOW as usize),
        refused: Cell::new(0),
        total: Cell::new(0),
    };
    // Neither is stopped before both are: a command or an event cut in half is never followed by
    // another. The answers are listened to at all times, because pings come among them.
    let mut answers = std::pin::pin!(take_answers(args, &mut receiver, &window));
    let done = tokio::select! {
        sent = send_lines(args, &mut sender, &window, source) => match sent {
            Ok(()) => Ok(()),
            Err(error) => Err(explain(error, &mut answers).await),
        },
        lost = &mut answers => lost,
    };
    if let Err(error) = done {
        window.tell_unknown();
        return Err(error);
    }
    sender.close().await;
    let (refused, total) = (window.refused.get(), window.total.get());
    if refused > 0 { Err(ClientError::Incomplete { refused, total }) } else { Ok(()) }
}

/// Sends every line under its number and waits until all are answered.
async fn send_lines(
    args: &PublishArgs,
    sender: &mut Sender,
    window: &Window,
    source: Source,
) -> Result<(), ClientError> {
    let (lines, mut read) = mpsc::channel(LINES_MAX);
    tokio::task::spawn_blocking(move || read_lines(source, &lines));
    while let Some(line) = read.recv().await {
        let number = window.total.get() + 1;
        window.total.set(number);
        match line.and_then(|line| payload::form(args.form(), line)) {
            Ok(payload) => {
                window.wait(1).await?;
                let sent =
                    timeout(ANSWER_TIMEOUT, sender.send(command(args, number, Some(payload))));
                sent.await.map_err(|_| ClientError::Unknown(ANSWER_TIMEOUT))??;
            }
            Err(error @ ClientError::Input { .. }) => return Err(error),
            Err(error) => window.refuse(number, &error),
        }
    }
    window.wait(WINDOW).await
}

/// Reads on a thread of its own, because a pipe may be silent for hours.
fn read_lines(mut source: Source, lines: &mpsc::Sender<Result<Vec<u8>, ClientError>>) {
    while let Some(line) = source.read_line().transpose() {
        // Nobody takes lines any more once the command has failed.
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
}

/// Prints answers as they come, until the connection ends.
async fn take_answers(
    args: &PublishArgs,
    receiver: &mut Receiver,
    window: &Window,
) -> Result<(), ClientError> {
    loop {
        match next_answer(receiver).await? {
            (_, Ok(published)) => print(args, &published)?,
            // Not the answer to a line: the server is unhappy with the connection itself.
            (0, Err(error)) => return Err(error),
            (number, Err(error)) => window.refuse(number, &error),
        }
        window.free.add_permits(1);
    }
}

impl Window {
    /// Waits until so many more lines are answered than were, and takes their places.
    async fn wait(&self, places: u32) -> Result<(), ClientError> {
        match timeout(ANSWER_TIMEOUT, self.free.acquire_many(places)).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(ClientError::Unknown(ANSWER_TIMEOUT)),
        }
    }

    /// Says how many lines nobody knows about when there are no more answers to come.
    fn tell_unknown(&self) {
        let unknown = (WINDOW as usize).saturating_sub(self.free.available_permits());
        if unknown > 0 {
            super::tell(&format!(
                "{unknown} lines have no answer: they may or may not be published"
            ));
        }
    }

    fn refuse(&self, number: u64, error: &ClientError) {
        self.refused.set(self.refused.get() + 1);
        super::tell(&format!("error: line {number}: {error}"));
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
    fn an_answer_tells_the_whole_position_and_what_it_is_worth() {
        let published = schema::Published {
            epoch: "AAAAAAAAAAAAAAAAAAAAAA".into(),
            offset: 45,
            durability: schema::Durability::Memory.into(),
        };
        let expected = "a.b offset 45 epoch AAAAAAAAAAAAAAAAAAAAAA durability memory\n";
        assert_eq!(answer_line("a.b", &published), expected);
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

    #[test]
    fn a_command_carries_the_topic_both_keys_the_time_to_live_and_the_payload() {
        let args = args(&["a.b", "x", "--key", "k", "--idempotency-key", "i", "--ttl", "1m 30s"]);
        let expected = schema::Publish {
            topic: "a.b".into(),
            payload: Some(Payload::Text("x".into())),
            key: "k".into(),
            idempotency_key: "i".into(),
            delete: false,
            ttl_ms: 90_000,
        };
        let command = command(&args, 7, Some(Payload::Text("x".into())));
        assert_eq!(command.id, 7);
        assert_eq!(command.action, Some(Action::Publish(expected)));
    }

    #[test]
    fn a_delete_has_a_key_and_no_payload() {
        let args = args(&["a.b", "--key", "k", "--delete"]);
        let Ok(Work::One(None)) = prepare(&args) else { panic!("it reads a payload") };
        let expected = schema::Publish {
            topic: "a.b".into(),
            key: "k".into(),
            delete: true,
            ..Default::default()
        };
        assert_eq!(command(&args, 1, None).action, Some(Action::Publish(expected)));
    }
}
