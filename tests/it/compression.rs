//! permessage-deflate over real sockets: agreed on, compressed once for everybody, inflated within
//! the limits.
//! # Not here: what deflate data is and every way to offer it (beside the code that reads them).

use crate::client::Client;
use crate::harness::{Broker, Bystander, Dice, with_broker};
use crate::http::Answer;
use crate::pipe::Pipe;
use crate::socket::{
    BINARY, CONTINUATION, FIN, PING, RSV1, Socket, TEXT, deflated, frame, must_agree, request,
};
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

const ON: &str = "websocket.compression = true";

/// A quote with more and more fields, `length` bytes long or a little longer.
fn quote(length: usize, dice: &mut Dice) -> Value {
    let mut fields = serde_json::Map::new();
    fields.insert("symbol".into(), "IBM".into());
    while Value::from(fields.clone()).to_string().len() < length {
        fields.insert(format!("price{}", fields.len()), dice.below(100_000).into());
    }
    fields.into()
}

fn publish(id: u64, topic: &str, data: &Value) -> Value {
    json!({"id": id, "publish": {"topic": topic, "data": data}})
}

/// How long the compressed messages were that a client has heard.
fn compressed(client: &Client) -> &[usize] {
    client.socket().compressed.as_deref().expect("compression was agreed on")
}

async fn answer_to(broker: &Broker, offer: Option<&str>) -> Answer {
    let mut pipe = Pipe::connect(broker.public()).await;
    let header = offer.map(|offer| format!("sec-websocket-extensions: {offer}\r\n"));
    let head = request(broker.public(), &header.unwrap_or_default());
    pipe.send(head.as_bytes()).await;
    Answer::read(&mut pipe).await
}

#[test]
fn compression_is_agreed_on_only_where_it_is_configured_and_offered() {
    let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let offers = [
        (None, None),
        (Some("permessage-deflate"), Some(agreed)),
        (Some("permessage-deflate; client_max_window_bits"), Some(agreed)),
        (Some("x, permessage-deflate; server_max_window_bits=9, permessage-deflate"), Some(agreed)),
        (Some("permessage-deflate; server_max_window_bits=9"), None),
        (Some("permessage-deflate; client_max_window_bits; client_max_window_bits"), None),
    ];
    with_broker(ON, async |broker| {
        for (offer, answer) in offers {
            must_agree(&answer_to(broker, offer).await, None, answer);
        }
        let broken = answer_to(broker, Some("permessage-deflate; client_max_window_bits=")).await;
        broken.must_refuse(Reason::BadRequest);
    });
    with_broker("", async |broker| {
        for (offer, _) in offers {
            must_agree(&answer_to(broker, offer).await, None, None);
        }
    });
}

#[test]
fn what_is_heard_is_the_same_with_and_without_compression() {
    with_broker(ON, async |broker| {
        let mut dice = Dice::new(7);
        let subscribe = json!({"id": 1, "subscribe": {"topic": "t"}});
        for wire in [Wire::WebSocketJson, Wire::WebSocketProto] {
            let mut plain = Client::connect(broker, wire).await;
            let mut deflated = Client::connect(broker, wire.deflated()).await;
            assert_eq!(plain.ask(&subscribe).await, deflated.ask(&subscribe).await);
            let sizes = [0, 20, 60, 100, 150, 300, 600, 3000, 20_000, 60_000];
            for (id, size) in (2..).zip(sizes) {
                let data = quote(size, &mut dice);
                // Both are publishers, too: one command in two is compressed.
                let publisher = if id % 2 == 0 { &mut plain } else { &mut deflated };
                publisher.say(&publish(0, "t", &data)).await;
                let (one, other) = (plain.hear().await, deflated.hear().await);
                assert_eq!(one, other);
                assert_eq!(one["message"]["data"], data);
            }
            let lengths = compressed(&deflated);
            assert!(lengths.len() >= 6 && lengths.len() < sizes.len(), "{lengths:?}");
            assert!(lengths.last().is_some_and(|last| *last < 30_000), "{lengths:?}");
            let heard = lengths.len();
            // What is read from history is the same bytes; a page of it is no message.
            let last = json!({"id": 3, "subscribe": {"topic": "t", "last": 3}});
            deflated.ask(&json!({"id": 2, "unsubscribe": {"topic": "t"}})).await;
            deflated.ask(&last).await;
            for _ in 0..3 {
                deflated.hear().await;
            }
            assert_eq!(compressed(&deflated)[heard..], compressed(&deflated)[heard - 3..heard]);
            deflated.ask(&json!({"id": 4, "history": {"topic": "t", "limit": 5}})).await;
            assert_eq!(compressed(&deflated).len(), heard + 3);
        }
    });
}

#[test]
fn a_thousand_subscribers_cost_one_compression() {
    with_broker(ON, async |broker| {
        let mut subscribers = Vec::new();
        for _ in 0..1000 {
            let mut client = Client::connect(broker, Wire::WebSocketJsonDeflate).await;
            client.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
            subscribers.push(client);
        }
        let mut publisher = Client::connect(broker, Wire::TcpProto).await;
        for (id, length) in [(1, 10), (2, 400)] {
            publisher.ask(&publish(id, "t", &quote(length, &mut Dice::new(id)))).await;
        }
        let mut lengths = Vec::new();
        for subscriber in &mut subscribers {
            for offset in 1..=2 {
                assert_eq!(subscriber.hear().await["message"]["offset"], offset);
            }
            lengths.extend_from_slice(compressed(subscriber));
        }
        assert_eq!(lengths, vec![lengths[0]; 1000]);
        let encodes = |wire: Wire| format!("fanfare_encodes_total{{wire=\"{}\"}}", wire.name());
        assert_eq!(broker.count(&encodes(Wire::WebSocketJsonDeflate)).await, 2);
        assert_eq!(broker.count(&encodes(Wire::WebSocketJson)).await, 0);
        let before = broker.count("fanfare_deflate_in_bytes_total").await;
        let after = broker.count("fanfare_deflate_out_bytes_total").await;
        // Once each, however many subscribers there are: some 480 bytes of a large message, which
        // shrink, and some 90 of a small one, which do not.
        assert!((400..800).contains(&before), "{before}");
        let saved = before - after;
        let head = 4;
        assert!(saved > 100, "{saved}");
        assert!(after > u64::try_from(lengths[0]).unwrap() + head, "{after}");
        let open = "fanfare_connections{wire=\"websocket_json_deflate\"}";
        assert_eq!(broker.count(open).await, 1000);
    });
}

#[test]
fn batches_and_compressed_messages_keep_their_order() {
    with_broker(ON, async |broker| {
        let mut socket = Socket::upgrade_compressed(
            broker,
            Pipe::connect(broker.public()).await,
            "fanfare.v1.json",
        )
        .await;
        let commands = [
            json!({"id": 1, "connect": {"batch": true}}),
            json!({"id": 2, "subscribe": {"topic": "t"}}),
        ];
        for command in &commands {
            let bytes = socket.spell(TEXT, command.to_string().as_bytes());
            socket.pipe.send(&bytes).await;
        }
        assert!(socket.frame().await.text().contains("connected"));
        assert!(socket.frame().await.text().ends_with("}}\n"));
        let mut publisher = Client::connect(broker, Wire::TcpProto).await;
        let mut dice = Dice::new(3);
        let mut all = Vec::new();
        for id in 1..=200_u64 {
            let size = if dice.below(3) == 0 { 400 } else { 10 };
            all.extend(publisher.spell(&publish(id, "t", &quote(size, &mut dice)).to_string()));
        }
        publisher.pipe().send(&all).await;
        let (mut heard, mut messages) = (0, 0);
        while heard < 200 {
            let text = socket.frame().await.text();
            messages += 1;
            assert!(text.ends_with('\n'));
            for line in text.lines() {
                let event: Value = serde_json::from_str(line).expect("a line of JSON");
                heard += 1;
                assert_eq!(event["message"]["offset"], heard, "{event}");
            }
        }
        let lengths = socket.compressed.expect("compression");
        assert!(lengths.len() > 20, "{lengths:?}");
        assert!(messages > lengths.len(), "{messages} messages");
    });
}

#[test]
fn compressed_commands_may_come_in_fragments_and_beside_others() {
    with_broker(ON, async |broker| {
        let mut dice = Dice::new(11);
        let mut reader = Client::connect(broker, Wire::WebSocketProto).await;
        reader.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
        let pipe = Pipe::connect(broker.public()).await;
        let mut socket = Socket::upgrade_compressed(broker, pipe, "fanfare.v1.json").await;
        for id in 1..=40_u64 {
            let data = quote(dice.below(4000), &mut dice);
            let body = publish(id, "t", &data).to_string();
            let bytes = if id % 4 == 0 {
                frame(FIN | TEXT, body.as_bytes())
            } else {
                let payload = deflated(body.as_bytes());
                let at = dice.below(payload.len() + 1);
                [
                    frame(RSV1 | TEXT, &payload[..at]),
                    frame(FIN | PING, b"between"),
                    frame(FIN | CONTINUATION, &payload[at..]),
                ]
                .concat()
            };
            let at = dice.below(bytes.len() + 1);
            socket.pipe.send(&bytes[..at]).await;
            socket.pipe.send(&bytes[at..]).await;
            if id % 4 != 0 {
                assert_eq!(socket.frame().await.payload, b"between");
            }
            let reply: Value = serde_json::from_str(&socket.frame().await.text()).unwrap();
            assert_eq!(reply["published"]["offset"], id, "{reply}");
            assert_eq!(reader.hear().await["message"]["data"], data);
        }
    });
}

#[test]
fn what_rfc_7692_or_a_limit_forbids_closes_and_hurts_nobody() {
    with_broker(ON, async |broker| {
        let mut bystander = Bystander::join(broker).await;
        let ping = br#"{"id":1,"ping":{}}"#;
        let spaces = |count: usize| [&ping[..], &vec![b' '; count]].concat();
        let halves = |body: &[u8]| {
            let payload = deflated(body);
            let (start, end) = payload.split_at(payload.len() / 2);
            [frame(RSV1 | TEXT, start), frame(FIN, end)].concat()
        };
        let bomb = deflated(&spaces(16 << 20));
        assert!(bomb.len() < 20_000);
        let cases = [
            (frame(FIN | RSV1 | TEXT, &bomb), Reason::MessageTooBig),
            (frame(FIN | RSV1 | TEXT, &deflated(&spaces(65_536))), Reason::MessageTooBig),
            (halves(&spaces(65_536)), Reason::MessageTooBig),
            (frame(FIN | RSV1 | TEXT, ping), Reason::ProtocolError),
            (frame(FIN | RSV1 | TEXT, b""), Reason::ProtocolError),
            (frame(FIN | RSV1 | PING, b""), Reason::ProtocolError),
            (frame(FIN | 0x20 | TEXT, ping), Reason::ProtocolError),
            ([frame(TEXT, b" "), frame(FIN | RSV1, ping)].concat(), Reason::ProtocolError),
            (frame(FIN | RSV1 | TEXT, &deflated(b"\"\xFF\"")), Reason::InvalidUtf8),
            (frame(FIN | RSV1 | BINARY, &deflated(ping)), Reason::UnsupportedData),
        ];
        for (index, (bytes, reason)) in cases.into_iter().enumerate() {
            println!("case {index}");
            let pipe = Pipe::connect(broker.public()).await;
            let mut socket = Socket::upgrade_compressed(broker, pipe, "fanfare.v1.json").await;
            // The largest that is allowed goes before.
            let good = socket.spell(TEXT, &spaces(65_536 - ping.len()));
            socket.pipe.send(&[good, bytes].concat()).await;
            assert_eq!(socket.frame().await.text(), r#"{"id":1,"pong":{}}"#);
            socket.must_close(reason.code()).await;
            bystander.is_fine().await;
        }
        // Without the agreement the bit is one of those that must be 0.
        let mut socket = Socket::open(broker, None).await;
        socket.pipe.send(&frame(FIN | RSV1 | TEXT, &deflated(ping))).await;
        let text = socket.must_close(1002).await;
        assert!(text.ends_with("the reserved bits of a frame are 100, they must be 000"), "{text}");
    });
}
