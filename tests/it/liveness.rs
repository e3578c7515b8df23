//! Who is still there: pings, and what silence leads to.
//! # Not here: readers that do not read (`slow`).

use crate::client::Client;
use crate::harness::with_broker;
use crate::socket::{Frame, PING, PONG, Socket, TEXT};
use fanfare::topics::message::Wire;
use serde_json::json;

const SETTINGS: &str = "websocket.ping_interval = \"1s\"\nwebsocket.pong_timeout = \"1s\"";

/// Hears a ping of the WebSocket and one of the protocol, which a page can see.
async fn hear_pings(socket: &mut Socket) -> Vec<u8> {
    let Frame { opcode, payload } = socket.frame().await;
    assert_eq!(opcode, PING);
    assert_eq!(socket.frame().await.text(), r#"{"ping":{}}"#);
    payload
}

#[test]
fn a_silent_client_is_pinged_and_then_closed() {
    with_broker(SETTINGS, async |broker| {
        let mut silent = Socket::open(broker, None).await;
        hear_pings(&mut silent).await;
        let reason = silent.must_close(4410).await;
        assert!(reason.starts_with("noPong: "), "{reason}");
        assert_eq!(broker.count("fanfare_closes_total{reason=\"noPong\"}").await, 1);
    });
}

#[test]
fn a_client_that_says_anything_stays() {
    // Time enough to answer on a machine that has other things to do.
    let settings = "websocket.ping_interval = \"2s\"\nwebsocket.pong_timeout = \"2s\"";
    with_broker(settings, async |broker| {
        let ponging = async {
            let mut socket = Socket::open(broker, None).await;
            for _ in 0..3 {
                let payload = hear_pings(&mut socket).await;
                socket.send(PONG, &payload).await;
            }
        };
        // The script of a page sees no ping of the WebSocket; its answer is any command.
        let speaking = async {
            let mut socket = Socket::open(broker, None).await;
            for id in 1..=3 {
                hear_pings(&mut socket).await;
                let command = json!({"id": id, "ping": {}}).to_string();
                socket.send(TEXT, command.as_bytes()).await;
                assert_eq!(socket.frame().await.text(), format!(r#"{{"id":{id},"pong":{{}}}}"#));
            }
        };
        tokio::join!(ponging, speaking);
        assert_eq!(broker.count("fanfare_closes_total{reason=\"noPong\"}").await, 0);
    });
}

#[test]
fn on_tcp_a_ping_asks_for_no_answer() {
    with_broker(SETTINGS, async |broker| {
        let mut client = Client::connect(broker, Wire::TcpProto).await;
        for _ in 0..4 {
            assert_eq!(client.hear().await, json!({"ping": {}}));
        }
        client.ask(&json!({"id": 1, "ping": {}})).await;
    });
}

#[test]
fn a_client_that_vanishes_while_it_closes_is_cut() {
    with_broker("", async |broker| {
        // It breaks the protocol, is told, and neither answers nor ends.
        let mut socket = Socket::open(broker, None).await;
        socket.pipe.send(&[0xFF, 0xFF]).await;
        assert_eq!(socket.frame().await.close().map(|(code, _)| code), Some(1002));
        broker.until("fanfare_connections{wire=\"websocket_json\"}", |open| open == 0).await;
        socket.pipe.end().await;
    });
}
