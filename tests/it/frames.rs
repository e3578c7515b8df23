//! What RFC 6455 allows a client, and what it must be answered.
//! # Not here: what it forbids (`corpus`), what commands mean (`transcripts`).

use crate::client::{Client, WIRES, length_delimited};
use crate::harness::{Broker, Bystander, with_broker};
use crate::socket::{BINARY, CLOSE, CONTINUATION, FIN, Frame, PING, PONG, Socket, TEXT, frame};
use crate::spelling;
use fanfare::topics::message::Wire;
use prost::Message as _;
use serde_json::json;

/// The limit of a message.
const MESSAGE_BYTES_MAX: usize = 65_536;

#[test]
fn a_ping_is_answered_with_its_own_bytes() {
    with_broker("", async |broker| {
        let mut socket = Socket::open(broker, None).await;
        for length in [0, 1, 4, 124, 125] {
            let payload: Vec<u8> = (0..length).collect();
            socket.send(PING, &payload).await;
            assert_eq!(socket.frame().await, Frame { opcode: PONG, payload });
        }
        socket.send(PONG, b"nobody asked").await;
        socket.send(TEXT, br#"{"id":1,"ping":{}}"#).await;
        assert_eq!(socket.frame().await.text(), r#"{"id":1,"pong":{}}"#);
    });
}

#[test]
fn a_message_may_come_in_fragments_with_control_frames_between() {
    with_broker("limits.control_rate = \"off\"", async |broker| {
        let mut socket = Socket::open(broker, None).await;
        let command = r#"{"id":1,"publish":{"topic":"t","text":"fünf €, zwölf 😀"}}"#;
        for pieces in [1, 2, 3, 7, 60] {
            let size = command.len().div_ceil(pieces);
            let chunks: Vec<&[u8]> = command.as_bytes().chunks(size).collect();
            let last = chunks.len() - 1;
            let mut pings = Vec::new();
            for (index, chunk) in chunks.iter().enumerate() {
                let opcode = if index == 0 { TEXT } else { CONTINUATION };
                let fin = if index == last { FIN } else { 0 };
                socket.pipe.send(&frame(fin | opcode, chunk)).await;
                if index != last {
                    let payload = format!("ping {index}").into_bytes();
                    socket.send(PING, &payload).await;
                    pings.push(payload);
                }
            }
            for payload in pings {
                assert_eq!(socket.frame().await, Frame { opcode: PONG, payload });
            }
            let reply = socket.frame().await.text();
            assert!(reply.contains("published"), "{reply}");
        }
    });
}

#[test]
fn empty_fragments_and_as_many_as_the_limit_are_fine() {
    with_broker("", async |broker| {
        let mut socket = Socket::open(broker, None).await;
        let command = br#"{"id":1,"ping":{}}"#;
        let bytes = [
            frame(TEXT, b""),
            frame(CONTINUATION, command),
            frame(CONTINUATION, b"").repeat(61),
            frame(FIN | CONTINUATION, b""),
        ];
        socket.pipe.send(&bytes.concat()).await;
        assert_eq!(socket.frame().await.text(), r#"{"id":1,"pong":{}}"#);
    });
}

#[test]
fn a_message_of_exactly_the_limit_is_understood_on_every_wire() {
    with_broker("", async |broker| {
        let ping = r#"{"id":1,"ping":{}}"#;
        let json = format!("{ping}{}", " ".repeat(MESSAGE_BYTES_MAX - ping.len()));
        let mut socket = Socket::open(broker, None).await;
        socket.send(TEXT, json.as_bytes()).await;
        assert_eq!(socket.frame().await.text(), r#"{"id":1,"pong":{}}"#);
        socket.send(TEXT, format!("{json} ").as_bytes()).await;
        let reason = socket.must_close(1009).await;
        assert!(reason.contains("message is 65537 bytes, the limit is 65536"), "{reason}");

        for wire in [Wire::WebSocketProto, Wire::TcpProto] {
            let text = "x".repeat(MESSAGE_BYTES_MAX);
            let command = |text: &str| {
                let json = json!({"id": 1, "publish": {"topic": "t", "text": text}});
                spelling::command(json).encode_to_vec()
            };
            let envelope = command(&text).len() - text.len();
            let bytes = command(&text[..MESSAGE_BYTES_MAX - envelope]);
            assert_eq!(bytes.len(), MESSAGE_BYTES_MAX);
            let over = command(&text[..=MESSAGE_BYTES_MAX - envelope]);
            let mut client = Client::connect(broker, wire).await;
            for (bytes, is_over) in [(bytes, false), (over, true)] {
                let bytes = match wire {
                    Wire::TcpProto => length_delimited(&bytes),
                    _ => frame(FIN | BINARY, &bytes),
                };
                client.pipe().try_send(&bytes).await;
                if !is_over {
                    assert!(client.hear().await["published"].is_object());
                }
            }
            let ending = client.ending().await;
            assert_eq!((ending.code, ending.name.as_str()), (1009, "messageTooBig"));
        }
    });
}

#[test]
fn every_length_that_a_server_frame_can_have_is_written_in_the_fewest_bytes() {
    with_broker("", async |broker| {
        let mut subscribers = Vec::new();
        for wire in WIRES {
            let mut client = Client::connect(broker, wire).await;
            client.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
            subscribers.push(client);
        }
        let mut publisher = Client::connect(broker, Wire::TcpProto).await;
        // With what is around it an event is 20 to 80 bytes longer than its payload.
        let lengths = (0..=120).chain(65_430..=65_500);
        for length in lengths {
            let publish = json!({"topic": "t", "text": "x".repeat(length)});
            publisher.ask(&json!({"id": 1, "publish": publish})).await;
            for subscriber in &mut subscribers {
                let event = subscriber.hear().await;
                assert_eq!(event["message"]["text"].as_str().map(str::len), Some(length));
            }
        }
    });
}

#[test]
fn a_close_is_answered_with_its_code_and_ends_the_connection() {
    with_broker("", async |broker| {
        let mut bystander = Bystander::join(broker).await;
        let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
        for code in codes.into_iter().chain([3000, 3999, 4000, 4999]) {
            let code: u16 = code;
            let mut socket = Socket::open(broker, None).await;
            let payload = [&code.to_be_bytes()[..], "bye ä".as_bytes()].concat();
            socket.send(CLOSE, &payload).await;
            assert_eq!(socket.frame().await.close(), Some((code, String::new())));
            socket.pipe.end().await;
        }
        let mut socket = Socket::open(broker, None).await;
        socket.send(CLOSE, b"").await;
        assert_eq!(socket.frame().await.close(), None);
        socket.pipe.end().await;
        bystander.is_fine().await;
        assert_eq!(broker.count("fanfare_closes_total{reason=\"normal\"}").await, 17);
    });
}

#[test]
fn what_comes_before_a_close_is_answered_and_what_comes_after_is_not_heard() {
    with_broker("", async |broker| {
        let mut socket = Socket::open(broker, None).await;
        let publish = |id| {
            let command = json!({"id": id, "publish": {"topic": "t", "text": "x"}}).to_string();
            frame(FIN | TEXT, command.as_bytes())
        };
        let close = frame(FIN | CLOSE, &1000_u16.to_be_bytes());
        let after = [publish(3), frame(FIN | PING, b"late"), close.clone(), vec![0xFF; 100]];
        let bytes = [publish(1), publish(2), close, after.concat()].concat();
        socket.pipe.send(&bytes).await;
        for id in 1..=2 {
            let reply = socket.frame().await.text();
            assert!(reply.starts_with(&format!("{{\"id\":{id},\"published\"")), "{reply}");
        }
        assert_eq!(socket.frame().await.close(), Some((1000, String::new())));
        socket.pipe.try_send(&publish(4)).await;
        socket.pipe.end().await;
        assert_eq!(broker.count("fanfare_published_total").await, 2);
    });
}

#[test]
fn a_client_that_ends_without_a_close_is_forgotten() {
    with_broker("", async |broker| {
        for wire in WIRES {
            let mut client = Client::connect(broker, wire).await;
            client.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
            client.ask(&json!({"id": 2, "subscribe": {"topic": ">"}})).await;
            let open = format!("fanfare_connections{{wire=\"{}\"}}", wire.name());
            assert_eq!(broker.count(&open).await, 1);
            drop(client);
            broker.until(&open, |count| count == 0).await;
        }
        for target in ["topic", "filter"] {
            let series = format!("fanfare_subscriptions{{target=\"{target}\"}}");
            assert_eq!(broker.count(&series).await, 0);
        }
    });
}

#[test]
fn a_message_that_ends_in_the_middle_is_forgotten() {
    with_broker("", async |broker| {
        for cut in [1, 2, 5, 10, 14, 15, 1000] {
            let mut socket = Socket::open(broker, None).await;
            let bytes = frame(FIN | TEXT, &vec![b' '; 65_536]);
            socket.pipe.send(&bytes[..cut]).await;
            socket.pipe.finish();
            socket.pipe.end().await;
        }
        broker.until("fanfare_connections{wire=\"websocket_json\"}", |open| open == 0).await;
    });
}

/// Sends a stream of bytes in two pieces, for every place where it can be cut. The second piece is
/// sent once the first has been read. After each stream the client must hear the same.
async fn cut_everywhere(broker: &Broker, client: &mut Client, stream: &[u8], ids: &[u64]) {
    let mut received = broker.count("fanfare_received_bytes_total").await;
    for cut in 1..stream.len() {
        let (first, second) = stream.split_at(cut);
        client.pipe().send(first).await;
        received += first.len() as u64;
        broker.until("fanfare_received_bytes_total", |count| count == received).await;
        client.pipe().send(second).await;
        received += second.len() as u64;
        for id in ids {
            let event = client.hear().await;
            assert_eq!(event["id"], *id, "cut at {cut}: {event}");
            assert!(event["error"].is_null(), "cut at {cut}: {event}");
        }
    }
}

#[test]
fn a_stream_of_frames_may_be_cut_anywhere() {
    with_broker("limits.control_rate = \"off\"", async |broker| {
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        let long = format!(r#"{{"id":3,"history":{{"topic":"{}"}}}}"#, "t".repeat(130));
        let stream = [
            frame(FIN | TEXT, br#"{"id":1,"ping":{}}"#),
            frame(TEXT, b"{\"id\":2,\"topic\":\"\xc3"),
            frame(FIN | PONG, b"between"),
            frame(CONTINUATION, b"\xa4\","),
            frame(FIN | CONTINUATION, b"\"ping\":{}}"),
            frame(FIN | TEXT, long.as_bytes()),
        ];
        cut_everywhere(broker, &mut client, &stream.concat(), &[1, 2, 3]).await;
    });
}

#[test]
fn a_stream_of_tcp_messages_may_be_cut_anywhere() {
    with_broker("", async |broker| {
        let mut client = Client::connect(broker, Wire::TcpProto).await;
        let commands = [
            json!({"id": 1, "ping": {}}),
            json!({"id": 2, "history": {"topic": "t".repeat(60)}}),
            json!({"id": 3, "connect": {}}),
        ];
        let stream: Vec<Vec<u8>> =
            commands.iter().map(|command| client.spell(&command.to_string())).collect();
        cut_everywhere(broker, &mut client, &stream.concat(), &[1, 2, 3]).await;
    });
}
