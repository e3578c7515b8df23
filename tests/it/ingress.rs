//! The TCP transport: pipelined, acknowledged in order, strict about lengths.
//! # Not here: what commands mean (`transcripts`), cutting a stream (`frames`).

use crate::client::{Client, length_delimited};
use crate::harness::{Bystander, with_broker, within};
use crate::pipe::Pipe;
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::json;
use tokio::io::AsyncWriteExt;

/// The bytes of so many publish commands, with ids from 1 on.
fn publishes(client: &Client, topic: &str, count: u64) -> Vec<u8> {
    let command = |id: u64| json!({"id": id, "publish": {"topic": topic, "text": id.to_string()}});
    (1..=count).flat_map(|id| client.spell(&command(id).to_string())).collect()
}

/// The next so many events must acknowledge publishes with ids and offsets from 1 on.
async fn hear_acks(client: &mut Client, count: u64) {
    for id in 1..=count {
        let event = client.hear().await;
        assert_eq!(
            (&event["id"], &event["published"]["offset"]),
            (&id.into(), &id.into()),
            "{event}"
        );
    }
}

#[test]
fn ten_thousand_publishes_at_once_are_acknowledged_in_order() {
    with_broker("", async |broker| {
        let mut client = Client::connect(broker, Wire::TcpProto).await;
        let bytes = publishes(&client, "t", 10_000);
        client.pipe().send(&bytes).await;
        hear_acks(&mut client, 10_000).await;
        assert_eq!(broker.count("fanfare_published_total").await, 10_000);
    });
}

#[test]
fn a_publisher_that_does_not_read_is_not_read_from() {
    with_broker("limits.outbound_bytes_max = \"128 KiB\"", async |broker| {
        let mut bystander = Bystander::join(broker).await;
        let pipe = Pipe::connect_narrow(broker.ingress()).await;
        let mut client = Client::begin(broker, Wire::TcpProto, pipe).await;
        let bytes = publishes(&client, "t", 20_000);
        let mut writer = client.pipe().writer();
        let sent = tokio::spawn(async move {
            writer.write_all(&bytes).await.expect("the broker takes it");
            writer
        });
        broker.until("fanfare_blocked_connections", |blocked| blocked == 1).await;
        bystander.is_fine().await;
        // Reading stops at half of what may wait; what one read brought is still answered.
        let waiting = broker.count("fanfare_outbound_bytes").await;
        assert!(waiting <= 128 << 10, "{waiting} bytes wait");
        assert!(broker.count("fanfare_published_total").await < 20_000);
        hear_acks(&mut client, 20_000).await;
        drop(within("the writer", sent).await.expect("it did not panic"));
    });
}

#[test]
fn whoever_has_finished_speaking_still_hears_the_answers() {
    with_broker("", async |broker| {
        let pipe = Pipe::connect_narrow(broker.ingress()).await;
        let mut client = Client::begin(broker, Wire::TcpProto, pipe).await;
        let bytes = publishes(&client, "t", 10_000);
        client.pipe().send(&bytes).await;
        client.pipe().finish();
        broker.until("fanfare_published_total", |count| count == 10_000).await;
        hear_acks(&mut client, 10_000).await;
        client.pipe().end().await;
    });
}

#[test]
fn a_length_over_the_limit_is_told_and_ends_the_connection() {
    with_broker("", async |broker| {
        let mut bystander = Bystander::join(broker).await;
        for length in [65_537, 1 << 20, u32::MAX] {
            let length: u32 = length;
            let mut client = Client::connect(broker, Wire::TcpProto).await;
            let ping = client.spell(r#"{"id":1,"ping":{}}"#);
            client.pipe().send(&[&ping[..], &length.to_be_bytes(), &ping].concat()).await;
            assert_eq!(client.hear().await, json!({"id": 1, "pong": {}}));
            let event = client.hear().await;
            let message = format!("message is {length} bytes, the limit is 65536");
            crate::http::refusal(&event, Reason::MessageTooBig);
            assert!(event["error"]["message"].as_str().is_some_and(|m| m.ends_with(&message)));
            client.pipe().end().await;
        }
        bystander.is_fine().await;
    });
}

#[test]
fn what_is_not_a_command_is_refused_and_the_connection_stays() {
    with_broker("", async |broker| {
        let mut client = Client::connect(broker, Wire::TcpProto).await;
        let garbage: [&[u8]; 6] =
            [b"", b"\xff", b"GET / HTTP/1.1\r\n\r\n", b"{}", b"\x08\x07\x52", &[0; 500]];
        for bytes in garbage {
            client.pipe().send(&length_delimited(bytes)).await;
            let event = client.hear().await;
            assert_eq!(event["error"]["name"], "badCommand", "{event}");
        }
        client.ask(&json!({"id": 1, "ping": {}})).await;
    });
}

#[test]
fn a_command_for_another_port_ends_the_connection() {
    with_broker("", async |broker| {
        // Read as a length, `GET ` is more than a gigabyte.
        let mut pipe = Pipe::connect(broker.ingress()).await;
        pipe.send(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let client = Client::begin(broker, Wire::TcpProto, pipe).await;
        assert_eq!(client.ending().await.code, 1009);
    });
}

#[test]
fn a_subscriber_on_tcp_gets_what_others_publish() {
    with_broker("", async |broker| {
        let mut subscriber = Client::connect(broker, Wire::TcpProto).await;
        let mut publisher = Client::connect(broker, Wire::WebSocketJson).await;
        subscriber.ask(&json!({"id": 1, "subscribe": {"topic": "a.>"}})).await;
        for offset in 1..=100 {
            publisher.ask(&json!({"id": 1, "publish": {"topic": "a.b", "data": offset}})).await;
            if offset == 1 {
                assert_eq!(subscriber.hear().await["position"]["offset"], 0);
            }
            let event = subscriber.hear().await;
            assert_eq!(event["message"]["offset"], offset, "{event}");
            assert_eq!(event["message"]["data"], offset, "{event}");
        }
    });
}
