//! Somebody who publishes and notes what place everything was given.
//! # Invariants: whatever is published is answered.
//! # Not here: refusals.

use crate::client::Client;
use crate::harness::Broker;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

/// Commands that are underway at once.
const TOGETHER: usize = 20;

/// A client that publishes.
pub(crate) struct Publisher {
    pub(crate) client: Client,
}

impl Publisher {
    /// Connects by TCP.
    pub(crate) async fn connect(broker: &Broker) -> Publisher {
        Publisher { client: Client::connect(broker, Wire::TcpProto).await }
    }

    /// Waits until every shard has dealt with what was published: sent it, or kept it for later.
    pub(crate) async fn settle(&mut self, broker: &Broker) {
        let mut witnesses = Vec::new();
        for _ in 0..2 {
            let mut witness = Client::connect(broker, Wire::WebSocketJson).await;
            let reply = witness.ask(&json!({"id": 1, "connect": {}})).await;
            let shard = reply["connected"]["connection"].as_str().expect("a name").chars().next();
            witness.ask(&json!({"id": 2, "subscribe": {"topic": "witness"}})).await;
            witnesses.push((shard, witness));
        }
        assert_ne!(witnesses[0].0, witnesses[1].0, "connections go to the shards in turn");
        self.publish(&json!({"topic": "witness", "data": 1})).await;
        for (_, mut witness) in witnesses {
            assert!(witness.hear().await["message"].is_object());
        }
    }

    /// Publishes one message; returns its place.
    pub(crate) async fn publish(&mut self, publish: &Value) -> Value {
        let reply = self.client.ask(&json!({"id": 1, "publish": publish})).await;
        assert!(reply["published"].is_object(), "{reply}");
        reply["published"].clone()
    }

    /// Publishes messages, some of them at once; returns their places.
    pub(crate) async fn publish_all(&mut self, publishes: &[Value]) -> Vec<Value> {
        let mut places = Vec::new();
        for chunk in publishes.chunks(TOGETHER) {
            let command = |publish| json!({"id": 1, "publish": publish}).to_string();
            let spelled = chunk.iter().map(|publish| self.client.spell(&command(publish)));
            let bytes: Vec<u8> = spelled.flatten().collect();
            self.client.pipe().send(&bytes).await;
            for _ in chunk {
                let reply = self.client.hear().await;
                assert!(reply["published"].is_object(), "{reply}");
                places.push(reply["published"].clone());
            }
        }
        places
    }
}
