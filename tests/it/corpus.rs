//! Two tables of what a client may send and what becomes of it: `corpus/frames.txt` and
//! `corpus/upgrades.txt`.
//! # Invariants: every row of frames is read whole, byte by byte and cut in two at every place, and
//! every row that is refused is sent to a broker, too.
//! # Not here: what messages mean (`transcripts`), random streams (the decoder's own tests).

use crate::harness::{Broker, Bystander, with_broker};
use crate::http::{Answer, publish_request};
use crate::notation::{Said, Sent, frames, unescape};
use crate::pipe::Pipe;
use crate::socket::{FIN, PONG, Socket, TEXT, frame, request};
use fanfare::reason::{Reason, Refusal};
use fanfare::ws::decoder::{Decoder, DecoderLimits, Incoming};
use fanfare::ws::extensions::Compression;

const FRAMES: &str = include_str!("corpus/frames.txt");
const UPGRADES: &str = include_str!("corpus/upgrades.txt");

/// All rows come from one address, faster than one may.
const MANY: &str = "limits.address_burst = 10000";

/// The rows of a table, in columns.
fn rows<const N: usize>(table: &'static str) -> impl Iterator<Item = [&'static str; N]> {
    let is_row = |line: &&str| !line.is_empty() && !line.starts_with('#');
    table.lines().filter(is_row).map(|line| {
        let cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
        cells.try_into().unwrap_or_else(|_| panic!("{N} columns, not: {line}"))
    })
}

// === Frames ===

/// What a decoder makes of reads.
fn decode<'r>(reads: impl IntoIterator<Item = &'r [u8]>) -> Vec<Said> {
    let mut decoder = Decoder::new(DecoderLimits::default(), Compression::None);
    let mut said = Vec::new();
    for read in reads {
        let mut read = read.to_vec();
        let mut input = &mut read[..];
        loop {
            match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(incoming)) => said.push(hear(incoming)),
                Err(violation) => {
                    said.push(Said::Refused(violation.reason().code(), violation.to_string()));
                }
            }
        }
    }
    said
}

fn hear(incoming: Incoming<'_>) -> Said {
    match incoming {
        Incoming::Text(text) => Said::Message("text", text.into()),
        Incoming::Binary(bytes) => Said::Message("binary", bytes.into()),
        Incoming::Ping(bytes) => Said::Message("ping", bytes.into()),
        Incoming::Pong(bytes) => Said::Message("pong", bytes.into()),
        Incoming::Close(None) => Said::Message("close", Vec::new()),
        Incoming::Close(Some((code, reason))) => {
            Said::Message("close", [&code.to_be_bytes()[..], reason.as_bytes()].concat())
        }
    }
}

/// Where a long stream is cut: near its beginning and its end, and here and there between.
fn cuts(length: usize) -> Vec<usize> {
    (0..=length).filter(|at| *at <= 64 || length - at <= 64 || at % 7919 == 0).collect()
}

#[test]
fn every_row_of_frames_is_understood_or_refused_however_it_is_cut() {
    let late = frame(FIN | TEXT, b"late");
    for [what, sent, says] in rows(FRAMES) {
        println!("{what}");
        let said = Said::parse(says);
        let mut stream = Sent::bytes(&frames(sent));
        if said.last().is_some_and(Said::is_an_end) {
            stream.extend(&late);
        }
        assert!(decode([&stream[..]]) == said, "whole: {:?}", decode([&stream[..]]));
        assert!(decode(stream.chunks(1)) == said, "byte by byte");
        for at in cuts(stream.len()) {
            let (start, end) = stream.split_at(at);
            assert!(decode([start, end]) == said, "cut at {at}");
        }
    }
}

#[test]
fn a_text_may_be_cut_into_fragments_anywhere() {
    let mut texts = 0;
    for [what, sent, says] in rows(FRAMES) {
        println!("{what}");
        let [Sent::Text(payload)] = &frames(sent)[..] else { continue };
        let said = Said::parse(says);
        for at in cuts(payload.len()).into_iter().filter(|_| payload.len() <= 65_536) {
            let (start, end) = payload.split_at(at);
            let stream = [frame(TEXT, start), frame(FIN, end)].concat();
            assert!(decode([&stream[..]]) == said, "fragments of {at} bytes and the rest");
        }
        texts += 1;
    }
    assert!(texts > 80, "only {texts} rows are a single text");
}

#[test]
fn a_broker_closes_with_the_code_of_the_row_and_nobody_else_notices() {
    with_broker(MANY, async |broker| {
        let mut bystander = Bystander::join(broker).await;
        for (index, [what, sent, says]) in rows(FRAMES).enumerate() {
            let mut said = Said::parse(says);
            let Some(Said::Refused(code, why)) = said.pop() else { continue };
            // In the spelling that is spoken here binary is refused for another reason.
            if said.iter().any(|said| said.is("binary")) {
                continue;
            }
            println!("{what}");
            refuse(broker, &Sent::bytes(&frames(sent)), &said, (code, &why)).await;
            if index % 16 == 0 {
                bystander.is_fine().await;
            }
        }
        bystander.is_fine().await;
        let own = bystander.published();
        assert_eq!(broker.count("fanfare_published_total").await, own, "something late was heard");
    });
}

/// Sends a violation behind a good command and in front of another: the first is answered, then
/// comes the close, and the other is not heard.
async fn refuse(broker: &Broker, bytes: &[u8], said: &[Said], (code, why): (u16, &str)) {
    let ping = frame(FIN | TEXT, br#"{"id":1,"ping":{}}"#);
    let publish = frame(FIN | TEXT, br#"{"id":2,"publish":{"topic":"late","text":"x"}}"#);
    let mut socket = Socket::open(broker, Some("fanfare.v1.json")).await;
    socket.pipe.send(&ping).await;
    assert_eq!(socket.frame().await.text(), r#"{"id":1,"pong":{}}"#);
    socket.pipe.try_send(&[bytes, &publish].concat()).await;
    for said in said.iter().filter(|said| !said.is("pong")) {
        let answer = socket.frame().await;
        // A text that is no command is answered with an error.
        assert_eq!(answer.opcode, if said.is("ping") { PONG } else { TEXT }, "{answer:?}");
    }
    let reason = Reason::ALL.iter().find(|reason| reason.code() == code).expect("a reason");
    let refusal = Refusal::new(*reason, why);
    let told = socket.must_close(code).await;
    // A control frame has no room for more.
    let whole = format!("{}: {refusal}", reason.name());
    assert_eq!(told, whole[..whole.len().min(123)]);
}

// === Upgrades ===

#[test]
fn every_row_of_upgrades_is_answered_and_what_hides_behind_a_refused_one_is_not_heard() {
    with_broker(MANY, async |broker| {
        let mut bystander = Bystander::join(broker).await;
        let mut wrong = Vec::new();
        for [what, edit, expected] in rows(UPGRADES) {
            println!("{what}");
            let answer = answer(broker, &edited(&request(broker.public(), ""), edit)).await;
            if answer != expected {
                wrong.push(format!("{what}: {answer}, expected was {expected}"));
            }
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
        bystander.is_fine().await;
        let own = bystander.published();
        assert_eq!(broker.count("fanfare_published_total").await, own, "what was hidden was heard");
    });
}

/// The answer to a request: 101 and a WebSocket; or a status, the name of the reason if it is one of
/// ours, and the end, though another request came behind.
async fn answer(broker: &Broker, head: &[u8]) -> String {
    let mut pipe = Pipe::connect(broker.public()).await;
    let hidden = publish_request(broker.public(), r#"{"topic":"hidden","text":"x"}"#);
    pipe.try_send(&[head, hidden.as_bytes()].concat()).await;
    let Some(answer) = Answer::try_read(&mut pipe).await else { return "an end".to_owned() };
    if answer.status == 101 {
        // The bytes of a request are no frame.
        assert_eq!(Socket::new(pipe).frame().await.close().map(|(code, _)| code), Some(1002));
        return "101".to_owned();
    }
    pipe.end().await;
    let says_so = answer.header("connection").is_some_and(|options| options.starts_with("close"));
    assert!(says_so, "{answer:?}");
    let body: serde_json::Value = serde_json::from_str(&answer.text()).unwrap_or_default();
    let name = body["error"]["name"].as_str().unwrap_or_default();
    let Some(reason) = Reason::ALL.iter().find(|reason| reason.name() == name) else {
        return answer.status.to_string();
    };
    answer.must_refuse(*reason);
    let allow = (*reason == Reason::MethodNotAllowed).then_some("GET");
    assert_eq!(answer.header("allow"), allow);
    let version = (*reason == Reason::UpgradeRequired).then_some("13");
    assert_eq!(answer.header("sec-websocket-version"), version);
    format!("{} {name}", answer.status)
}

/// A request with the changes that a row asks for.
fn edited(request: &str, edit: &str) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> =
        request.trim_end().split("\r\n").map(|line| line.as_bytes().to_vec()).collect();
    let mut body = Vec::new();
    for change in edit.split(" & ") {
        let (verb, rest) = change.split_once(' ').expect("a verb and what for");
        let bytes = unescape(rest);
        let is_named = |line: &Vec<u8>, name: &str| {
            let start = format!("{}:", name.to_ascii_lowercase());
            line.to_ascii_lowercase().starts_with(start.as_bytes())
        };
        match verb {
            "line" => lines[0] = bytes,
            "add" => lines.push(bytes),
            "drop" => lines.retain(|line| !is_named(line, rest)),
            "set" => {
                let (name, _) = rest.split_once(':').expect("a name and a value");
                let line = lines.iter_mut().find(|line| is_named(line, name));
                *line.expect("the header is there") = bytes;
            }
            "body" => body = bytes,
            verb => panic!("there is no change `{verb}`"),
        }
    }
    [lines.join(&b"\r\n"[..]), b"\r\n\r\n".to_vec(), body].concat()
}
