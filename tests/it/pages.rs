//! Plays the examples of `docs/protocol.md` that are about HTTP: requests and their answers, streams of
//! events and their ids.
//! # Invariants: every line of an example is played or fails.
//! # Not here: commands and events over WebSocket and TCP (`transcripts`).
#![allow(clippy::print_stdout, reason = "the last line printed tells where an example failed")]

use crate::events::Events;
use crate::harness::{Broker, with_broker};
use crate::http;
use crate::transcripts::Names;
use serde_json::Value;
use std::collections::BTreeMap;

/// Who plays.
struct Player<'a> {
    broker: &'a Broker,
    names: Names,
    /// The streams of each letter, and the query of each.
    streams: BTreeMap<char, (Events, String)>,
    answer: Option<http::Answer>,
}

#[test]
fn the_examples_of_http_hold() {
    let page = include_str!("../../docs/protocol.md");
    let blocks: Vec<&str> = page.split("```http\n").skip(1).collect();
    assert!(blocks.len() >= 4, "only {} examples", blocks.len());
    for block in blocks {
        let (text, _) = block.split_once("```").expect("a block that ends");
        let settings: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# set: ")).collect();
        with_broker(&settings.join("\n"), async |broker| {
            let (names, streams) = (Names::default(), BTreeMap::new());
            let mut player = Player { broker, names, streams, answer: None };
            for line in text.lines().filter(|line| !(line.is_empty() || line.starts_with('#'))) {
                println!("{line}");
                player.play(line).await;
            }
        });
    }
}

impl Player<'_> {
    async fn play(&mut self, line: &str) {
        let client = line.chars().next().expect("a client");
        let (sign, rest) = line[1..].split_once(' ').expect("a sign");
        match sign {
            ">" => self.ask(client, rest).await,
            "<" if rest.starts_with('{') => self.hear(client, rest).await,
            "<" => self.check_answer(rest),
            "@" => {
                let expected = self.names.spell(rest);
                let (events, _) = self.streams.get(&client).expect("a stream");
                assert_eq!(events.last_id, Some(expected));
            }
            ":" if rest == "again" => {
                let (events, query) = self.streams.remove(&client).expect("a stream");
                let again = Events::resume(self.broker, &query, events.last_id.as_deref()).await;
                self.streams.insert(client, (again, query));
            }
            _ => panic!("{line}"),
        }
    }

    async fn ask(&mut self, client: char, request: &str) {
        let request = self.names.spell(request);
        let (method, rest) = request.split_once(' ').expect("a method");
        if let Some(query) = rest.strip_prefix("/sse?") {
            let answer = http::get(self.broker.public(), rest);
            if query.contains("topic=") {
                let events = Events::begin(self.broker, query).await;
                self.streams.insert(client, (events, query.to_owned()));
            } else {
                self.answer = Some(answer.await);
            }
            return;
        }
        self.answer = Some(match rest.split_once(' ') {
            Some(("/v1/publish", body)) => http::publish(self.broker.public(), body).await,
            None if method == "GET" => http::get(self.broker.public(), rest).await,
            _ => panic!("{request}"),
        });
    }

    async fn hear(&mut self, client: char, expected: &str) {
        let (events, _) = self.streams.get_mut(&client).expect("a stream");
        let got = events.hear().await;
        self.compare(expected, &got);
    }

    fn check_answer(&mut self, expected: &str) {
        let (status, body) = expected.split_once(' ').expect("a status and a body");
        let answer = self.answer.take().expect("an answer");
        assert_eq!(answer.status.to_string(), status, "{answer:?}");
        self.compare(body, &answer.json());
    }

    fn compare(&mut self, expected: &str, got: &Value) {
        let expected: Value = serde_json::from_str(expected).expect("JSON");
        assert!(self.names.matches(&expected, got), "expected {expected}\n but got {got}");
    }
}
