//! Limits that no transcript can show: of the whole broker, of time, of a shard's mailbox.
//! # Not here: what one connection may ask for (`tests/transcripts/limits.txt`).

use crate::client::{Client, WIRES};
use crate::harness::{Broker, Bystander, with_broker, within};
use crate::http::{self, Answer, get};
use crate::pipe::Pipe;
use crate::socket::{Socket, request};
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

#[test]
fn one_connection_too_many_is_told_so_and_welcome_when_another_has_left() {
    with_broker("limits.connections_max = 3", async |broker| {
        let first = Client::connect(broker, Wire::WebSocketJson).await;
        let mut bystander = Bystander::join(broker).await;
        let address = broker.public();
        for _ in 0..3 {
            let mut pipe = Pipe::connect(address).await;
            pipe.try_send(request(address, "").as_bytes()).await;
            let answer = Answer::read(&mut pipe).await;
            answer.must_refuse(Reason::TooManyConnections);
            assert_eq!(answer.header("retry-after"), Some("1"));
            pipe.end().await;
        }
        // One bound for all: the ingress is full too.
        let ending = Client::connect(broker, Wire::TcpProto).await.ending().await;
        assert_eq!((ending.code, ending.name.as_str()), (431, "tooManyConnections"));
        assert_eq!(get(broker.admin(), "/readyz").await.status, 200);
        bystander.is_fine().await;

        drop(first);
        let accepted = async {
            loop {
                let mut pipe = Pipe::connect(address).await;
                pipe.try_send(request(address, "").as_bytes()).await;
                if Answer::read(&mut pipe).await.status == 101 {
                    return Client::of(Socket::new(pipe), Wire::WebSocketJson);
                }
            }
        };
        let mut client = within("a place to be free", accepted).await;
        client.ask(&json!({"id": 1, "ping": {}})).await;
        bystander.is_fine().await;
    });
}

#[test]
fn more_positions_than_one_command_may_name_are_refused() {
    with_broker("limits.message_bytes_max = \"256 KiB\"", async |broker| {
        let place = json!({"topic": "a.b", "epoch": "AAAAAAAAAAAAAAAAAAAAAA", "offset": 1});
        for wire in WIRES {
            let mut client = Client::connect(broker, wire).await;
            let subscribe = json!({"topic": "a.*", "positions": vec![&place; 1025]});
            let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
            assert_eq!(reply["error"]["name"], "tooManyPositions", "{reply}");
            client.ask(&json!({"id": 2, "ping": {}})).await;
        }
    });
}

#[test]
fn a_position_whose_messages_have_become_too_old_is_refused_as_expired() {
    with_broker("topics.history.age = \"100ms\"", async |broker| {
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        let mut publish = async |offset: u64| {
            let publish = json!({"topic": "t", "data": offset});
            client.ask(&json!({"id": 1, "publish": publish})).await["published"].clone()
        };
        let first = publish(1).await;
        let since = json!({"epoch": first["epoch"], "offset": 0});
        let expired = async {
            // Age is looked at when something is published: until then nothing is lost.
            for offset in 2.. {
                publish(offset).await;
                let mut client = Client::connect(broker, Wire::TcpProto).await;
                let subscribe = json!({"topic": "t", "since": since});
                let reply = client.ask(&json!({"id": 1, "subscribe": subscribe})).await;
                let subscribed = &reply["subscribed"];
                assert_eq!(subscribed["position"]["offset"], offset, "{reply}");
                if subscribed["recovered"] == false {
                    assert_eq!(subscribed["reason"], "expired", "{reply}");
                    return;
                }
                for expected in 1..=offset {
                    assert_eq!(client.hear().await["message"]["offset"], expected);
                }
            }
        };
        within("the first message to become too old", expired).await;
        assert_eq!(broker.count("fanfare_resumes_refused_total{reason=\"expired\"}").await, 1);
    });
}

/// A client on this shard.
async fn client_on(broker: &Broker, shard: char, wire: Wire) -> Client {
    loop {
        let mut client = Client::connect(broker, wire).await;
        let hello = client.ask(&json!({"id": 1, "connect": {}})).await;
        let name = hello["connected"]["connection"].as_str().expect("a name");
        if name.starts_with(&format!("{shard}-")) {
            return client;
        }
    }
}

#[test]
fn a_full_mailbox_refuses_the_publisher_and_no_shard_gets_the_message() {
    with_broker("limits.mailbox_messages_max = 4", async |broker| {
        let mut subscribers = Vec::new();
        for shard in ['0', '1'] {
            let mut client = client_on(broker, shard, Wire::WebSocketJson).await;
            client.ask(&json!({"id": 2, "subscribe": {"topic": "t"}})).await;
            subscribers.push(client);
        }
        let mut publisher = client_on(broker, '0', Wire::WebSocketJson).await;
        let mut expected: Vec<Value> = Vec::new();
        let mut refused = 0;
        for round in 0..20 {
            // One read brings all of them, so the shard cannot deliver in between.
            let command = |id: u64| {
                json!({"id": id, "publish": {"topic": "t", "data": round * 100 + id}}).to_string()
            };
            let bytes: Vec<u8> = (1..=50).flat_map(|id| publisher.spell(&command(id))).collect();
            publisher.pipe().send(&bytes).await;
            for id in 1..=50_u64 {
                let reply = publisher.hear().await;
                assert_eq!(reply["id"], id, "{reply}");
                if reply["published"].is_object() {
                    expected.push((round * 100 + id).into());
                    assert_eq!(reply["published"]["offset"], expected.len(), "{reply}");
                } else {
                    http::refusal(&json!({"error": reply["error"]}), Reason::Overloaded);
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "the mailbox was never full");
        for subscriber in &mut subscribers {
            for (index, data) in expected.iter().enumerate() {
                let event = subscriber.hear().await;
                assert_eq!(event["message"]["offset"], index + 1, "{event}");
                assert_eq!(event["message"]["data"], *data, "{event}");
            }
            subscriber.ask(&json!({"id": 9, "ping": {}})).await;
        }
        let series = "fanfare_refusals_total{reason=\"overloaded\"}";
        assert_eq!(broker.count(series).await, refused);
        assert_eq!(broker.count("fanfare_published_total").await, expected.len() as u64);
    });
}
