//! The handshake over real sockets: which requests become a WebSocket, and what the others are told.
//! # Not here: requests that are refused whatever the configuration, and what may be said afterwards
//! (`corpus`, `frames`).

use crate::client::Client;
use crate::harness::{Broker, Bystander, with_broker, within};
use crate::http::{self, Answer};
use crate::pipe::Pipe;
use crate::socket::{self, BINARY, FIN, Socket, TEXT, must_accept, request};
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use prost::Message as _;
use serde_json::json;

#[test]
fn a_page_of_a_foreign_origin_is_refused() {
    with_broker("websocket.origins = [\"https://app.example\"]", async |broker| {
        let address = broker.public();
        let own = format!("http://{address}");
        let cases = [
            (own.as_str(), true),
            ("https://app.example", true),
            ("https://app.example:443", true),
            ("http://app.example", false),
            ("https://app.example.evil.example", false),
            ("https://evil.example", false),
            ("null", false),
            ("", false),
        ];
        for (origin, is_welcome) in cases {
            println!("{origin}");
            let head = request(address, &format!("origin: {origin}\r\n"));
            let answer = http::ask(address, &head).await;
            if is_welcome {
                must_accept(&answer, None);
            } else {
                answer.must_refuse(Reason::BadOrigin);
            }
        }
        let two = format!("origin: {own}\r\norigin: {own}\r\n");
        http::ask(address, &request(address, &two)).await.must_refuse(Reason::BadOrigin);
    });
}

#[test]
fn a_name_of_others_that_leads_to_an_open_broker_on_this_machine_is_refused() {
    const WAYS: [(&str, &str); 4] = [
        ("GET /v1/history?topic=a.b", ""),
        ("GET /sse?topic=a.b", ""),
        ("POST /v1/publish", "content-type: application/json\r\ncontent-length: 0\r\n"),
        ("GET /ws", "upgrade: websocket\r\n"),
    ];
    let ask_all = async |broker: &Broker, host: &str, reason: Option<Reason>| {
        for (way, headers) in WAYS {
            println!("{way} {host}");
            let request = format!("{way} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n");
            let answer = http::ask(broker.public(), &request).await;
            match reason {
                Some(reason) => drop(answer.must_refuse(reason)),
                None => assert!(!answer.text().contains("badHost"), "{answer:?}"),
            }
        }
    };
    with_broker("websocket.origins = ['https://app.example']", async |broker| {
        ask_all(broker, "evil.example", Some(Reason::BadHost)).await;
        ask_all(broker, "127.0.0.1.evil.example:80", Some(Reason::BadHost)).await;
        for known in ["localhost", "127.0.0.1:1", "[::1]", "app.example"] {
            ask_all(broker, known, None).await;
        }
    });
    // Whoever puts a proxy in front says so, or who may do what.
    for settings in ["listen.trusted_proxies = ['127.0.0.1']", "auth.anonymous.subscribe = ['>']"] {
        with_broker(settings, async |broker| ask_all(broker, "evil.example", None).await);
    }
}

#[test]
fn the_first_offered_subprotocol_that_is_spoken_is_chosen() {
    with_broker("", async |broker| {
        let address = broker.public();
        let cases = [
            ("fanfare.v1.json", Some("fanfare.v1.json")),
            ("fanfare.v1.proto", Some("fanfare.v1.proto")),
            ("fanfare.v1.proto, fanfare.v1.json", Some("fanfare.v1.proto")),
            ("mqtt, graphql-ws,fanfare.v1.json", Some("fanfare.v1.json")),
            ("mqtt\r\nsec-websocket-protocol: fanfare.v1.proto", Some("fanfare.v1.proto")),
            ("fanfare.token.c2VjcmV0, fanfare.v1.proto", Some("fanfare.v1.proto")),
            // A token is no offer: what is left is none, and none means JSON.
            ("fanfare.token.c2VjcmV0", None),
        ];
        for (offer, chosen) in cases {
            println!("{offer}");
            let headers = format!("sec-websocket-protocol: {offer}\r\n");
            let answer = http::ask(address, &request(address, &headers)).await;
            must_accept(&answer, chosen);
            assert!(!format!("{answer:?}").contains("c2VjcmV0"), "{answer:?}");
        }
    });
}

#[test]
fn an_offer_of_nothing_that_is_spoken_is_refused_with_what_is() {
    with_broker("", async |broker| {
        let address = broker.public();
        for offer in ["mqtt", "fanfare.v1", "fanfare.v2.json", "FANFARE.V1.JSON", "a, b, c"] {
            let headers = format!("sec-websocket-protocol: {offer}\r\n");
            let answer = http::ask(address, &request(address, &headers)).await;
            let message = answer.must_refuse(Reason::BadSubprotocol);
            assert!(message.contains("fanfare.v1.json and fanfare.v1.proto"), "{message}");
        }
        for offer in ["a b", "a;b", "{}", &"x".repeat(13_000), &vec!["x"; 17].join(",")] {
            let headers = format!("sec-websocket-protocol: {offer}\r\n");
            let answer = http::ask(address, &request(address, &headers)).await;
            answer.must_refuse(Reason::BadRequest);
        }
    });
}

#[test]
fn without_an_offer_json_is_spoken() {
    with_broker("", async |broker| {
        let mut socket = Socket::open(broker, None).await;
        socket.send(TEXT, br#"{"id":5,"ping":{}}"#).await;
        assert_eq!(socket.frame().await.text(), r#"{"id":5,"pong":{}}"#);
    });
}

#[test]
fn frames_behind_the_handshake_are_understood() {
    with_broker("", async |broker| {
        let mut pipe = Pipe::connect(broker.public()).await;
        let mut bytes = request(broker.public(), "").into_bytes();
        for id in 1..=3 {
            let command = json!({"id": id, "ping": {}}).to_string();
            bytes.extend(socket::frame(FIN | TEXT, command.as_bytes()));
        }
        // The last one is cut in the middle.
        let half = bytes.len() - 10;
        pipe.send(&bytes[..half]).await;
        must_accept(&Answer::read(&mut pipe).await, None);
        let mut client = Client::of(Socket::new(pipe), Wire::WebSocketJson);
        assert_eq!(client.hear().await, json!({"id": 1, "pong": {}}));
        assert_eq!(client.hear().await, json!({"id": 2, "pong": {}}));
        client.pipe().send(&bytes[half..]).await;
        assert_eq!(client.hear().await, json!({"id": 3, "pong": {}}));
    });
}

#[test]
fn more_behind_the_handshake_than_its_buffer_holds_is_understood() {
    with_broker("", async |broker| {
        let mut pipe = Pipe::connect(broker.public()).await;
        let mut bytes = request(broker.public(), "").into_bytes();
        for id in 1..=5 {
            let text = "x".repeat(20_000);
            let command = json!({"id": id, "publish": {"topic": "early", "text": text}});
            bytes.extend(socket::frame(FIN | TEXT, command.to_string().as_bytes()));
        }
        pipe.send(&bytes).await;
        must_accept(&Answer::read(&mut pipe).await, None);
        let mut client = Client::of(Socket::new(pipe), Wire::WebSocketJson);
        for offset in 1..=5 {
            let event = client.hear().await;
            assert_eq!(event["published"]["offset"], offset, "{event}");
        }
    });
}

#[test]
fn a_handshake_that_arrives_byte_by_byte_is_understood() {
    with_broker("", async |broker| {
        let mut pipe = Pipe::connect(broker.public()).await;
        for byte in request(broker.public(), "sec-websocket-protocol: fanfare.v1.proto\r\n").bytes()
        {
            pipe.send(&[byte]).await;
        }
        must_accept(&Answer::read(&mut pipe).await, Some("fanfare.v1.proto"));
        let mut client = Client::of(Socket::new(pipe), Wire::WebSocketProto);
        client.ask(&json!({"id": 1, "ping": {}})).await;
    });
}

#[test]
fn a_head_that_does_not_come_or_does_not_end_is_given_up() {
    with_broker("limits.handshake_timeout = \"200ms\"", async |broker| {
        let mut bystander = Bystander::join(broker).await;
        let mut silent = Pipe::connect(broker.public()).await;
        let mut begun = Pipe::connect(broker.public()).await;
        begun.send(b"GET /ws HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
        silent.rest().await;
        begun.rest().await;
        let mut long = Pipe::connect(broker.public()).await;
        long.try_send(b"GET /ws HTTP/1.1\r\nhost: x\r\nx-long: ").await;
        long.try_send(&vec![b'x'; 100_000]).await;
        if let Some(answer) = Answer::try_read(&mut long).await {
            assert_eq!(answer.status, 431, "{answer:?}");
        }
        long.rest().await;
        bystander.is_fine().await;
    });
}

#[test]
fn what_is_not_http_is_answered_with_400_or_not_at_all() {
    with_broker("", async |broker| {
        let mut bystander = Bystander::join(broker).await;
        let noise: [&[u8]; 5] = [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"hello\r\n\r\n",
            b"GET /ws HTTP/1.1\r\nhost : x\r\n\r\n",
            b"GET /ws HTTP/1.1\r\n\0: x\r\n\r\n",
        ];
        for bytes in noise {
            let mut pipe = Pipe::connect(broker.public()).await;
            pipe.send(bytes).await;
            pipe.finish();
            if let Some(answer) = Answer::try_read(&mut pipe).await {
                assert_eq!(answer.status, 400, "{answer:?}");
            }
            pipe.rest().await;
            bystander.is_fine().await;
        }
    });
}

#[test]
fn an_independent_client_speaks_both_subprotocols() {
    use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload};
    use hyper::header::{CONNECTION, HOST, SEC_WEBSOCKET_PROTOCOL, UPGRADE};

    with_broker("", async |broker| {
        let mut listener = Client::connect(broker, Wire::TcpProto).await;
        listener.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
        for (offset, name) in [(1, "fanfare.v1.json"), (2, "fanfare.v1.proto")] {
            let stream = tokio::net::TcpStream::connect(broker.public()).await.expect("connected");
            let request = hyper::Request::builder()
                .uri("/ws")
                .header(HOST, broker.public().to_string())
                .header(UPGRADE, "websocket")
                .header(CONNECTION, "upgrade")
                .header("sec-websocket-key", fastwebsockets::handshake::generate_key())
                .header("sec-websocket-version", "13")
                .header(SEC_WEBSOCKET_PROTOCOL, name)
                .body(http_body_util::Empty::<bytes::Bytes>::new())
                .expect("a request");
            let client = fastwebsockets::handshake::client(&Spawn, request, stream);
            let (socket, answer) = within("a handshake", client).await.expect(name);
            assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], name);
            let mut socket = FragmentCollector::new(socket);
            let command = json!({"id": 9, "publish": {"topic": "t", "text": name}});
            let (opcode, command) = if name == "fanfare.v1.json" {
                (OpCode::Text, command.to_string().into_bytes())
            } else {
                (OpCode::Binary, crate::spelling::command(command).encode_to_vec())
            };
            let frame = Frame::new(true, opcode, None, Payload::Owned(command));
            within("a write", socket.write_frame(frame)).await.expect("written");
            let reply = within("a reply", socket.read_frame()).await.expect("read");
            assert_eq!(reply.opcode, opcode);
            let event = listener.hear().await;
            assert_eq!(event["message"]["text"], name, "{event}");
            assert_eq!(event["message"]["offset"], offset, "{event}");
            let close = Frame::close(1000, b"done");
            within("a write", socket.write_frame(close)).await.expect("written");
            let answer = within("a close", socket.read_frame()).await.expect("read");
            assert_eq!(answer.opcode, OpCode::Close);
        }
    });
}

/// Runs what hyper wants to have run on the side.
struct Spawn;

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// What both subprotocols call the other's kind of message.
#[test]
fn the_kind_of_message_of_the_other_subprotocol_closes_with_1003() {
    with_broker("", async |broker| {
        let mut bystander = Bystander::join(broker).await;
        for (name, opcode) in [("fanfare.v1.json", BINARY), ("fanfare.v1.proto", TEXT)] {
            let mut socket = Socket::open(broker, Some(name)).await;
            socket.send(opcode, b"{}").await;
            let reason = socket.must_close(1003).await;
            assert!(reason.starts_with("unsupportedData: "), "{reason}");
            assert!(reason.contains(name), "{reason}");
        }
        bystander.is_fine().await;
    });
}
