//! How a broker stops: everybody gets what was published, is told, and is waited for.
//! # Not here: signals and exit codes (`process`).

use crate::client::{Client, Ending, WIRES};
use crate::harness::{Broker, run, within};
use crate::http::{self, Answer};
use crate::pipe::Pipe;
use crate::socket::Socket;
use fanfare::topics::message::Wire;
use serde_json::json;

#[test]
fn everybody_gets_what_was_published_before_and_is_then_told() {
    // What is on its way between two shards depends on their timing, so this is done again.
    for _ in 0..20 {
        run(async {
            let broker = Broker::start("");
            let mut subscribers = Vec::new();
            for wire in WIRES.into_iter().chain(WIRES) {
                let mut client = Client::connect(&broker, wire).await;
                client.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
                subscribers.push(client);
            }
            let mut publisher = Client::connect(&broker, Wire::WebSocketProto).await;
            for offset in 1..=20 {
                let reply =
                    publisher.ask(&json!({"id": 1, "publish": {"topic": "t", "data": 1}})).await;
                assert_eq!(reply["published"]["offset"], offset, "{reply}");
            }
            let told = async {
                for mut client in subscribers {
                    for offset in 1..=20 {
                        let event = client.hear().await;
                        assert_eq!(event["message"]["offset"], offset, "{event}");
                    }
                    let expected = Ending { code: 1001, name: "goingAway".to_owned() };
                    assert_eq!(client.ending().await, expected);
                }
                publisher.ending().await
            };
            let (left, _) = tokio::join!(broker.drain(), told);
            assert_eq!(left, 0);
        });
    }
}

#[test]
fn nobody_is_let_in_any_more() {
    run(async {
        let broker = Broker::start("");
        let addresses = broker.addresses;
        let broker_admin = broker.admin();
        let ports = [Some(addresses.public), addresses.ingress];
        // Somebody who takes a while to go.
        let mut last = Socket::open(&broker, None).await;
        let refused = async {
            assert_eq!(last.farewell().await, Some(1001));
            for address in ports.into_iter().flatten() {
                let tried = within("connecting", tokio::net::TcpStream::connect(address)).await;
                let error = tried.expect_err("somebody listens").kind();
                assert_eq!(error, std::io::ErrorKind::ConnectionRefused);
            }
            // Who watches over the broker still sees it, and that it is not ready.
            let ready = http::get(broker_admin, "/readyz").await;
            assert_eq!(ready.status, 503);
            drop(last);
        };
        let (left, ()) = tokio::join!(broker.drain(), refused);
        assert_eq!(left, 0);
    });
}

#[test]
fn whoever_does_not_answer_is_cut_off_and_counted() {
    run(async {
        let broker = Broker::start("shutdown.grace = \"300ms\"");
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(Socket::open(&broker, None).await);
        }
        let answering = Client::connect(&broker, Wire::WebSocketJson).await;
        let (left, ending) = tokio::join!(broker.drain(), answering.ending());
        assert_eq!((left, ending.code), (3, 1001));
        for mut socket in silent {
            assert_eq!(socket.farewell().await, Some(1001));
            socket.pipe.end().await;
        }
    });
}

#[test]
fn a_grace_of_nothing_ends_at_once() {
    run(async {
        let broker = Broker::start("shutdown.grace = \"0s\"");
        let mut silent = Socket::open(&broker, None).await;
        assert_eq!(broker.drain().await, 1);
        silent.pipe.rest().await;
    });
}

#[test]
fn a_reader_that_is_behind_gets_what_waits_for_it() {
    run(async {
        let broker = Broker::start("");
        let pipe = Pipe::connect_narrow(broker.public()).await;
        let mut slow = Client::begin(&broker, Wire::WebSocketJson, pipe).await;
        slow.ask(&json!({"id": 1, "subscribe": {"topic": "t"}})).await;
        let mut publisher = Client::connect(&broker, Wire::TcpProto).await;
        let publish = json!({"topic": "t", "text": "x".repeat(10_000)});
        for _ in 0..60 {
            publisher.ask(&json!({"id": 1, "publish": publish})).await;
        }
        broker.until("fanfare_blocked_connections", |blocked| blocked == 1).await;
        drop(publisher);
        let told = async {
            for offset in 1..=60 {
                assert_eq!(slow.hear().await["message"]["offset"], offset);
            }
            slow.ending().await
        };
        let (left, ending) = tokio::join!(broker.drain(), told);
        assert_eq!((left, ending.code), (0, 1001));
    });
}

#[test]
fn connections_that_are_no_web_socket_do_not_hold_it_up() {
    run(async {
        let broker = Broker::start("");
        let address = broker.public();
        let mut idle = Pipe::connect(address).await;
        let body = r#"{"topic":"t","text":"x"}"#;
        idle.send(http::publish_request(address, body).as_bytes()).await;
        assert_eq!(Answer::read(&mut idle).await.status, 200);
        let mut begun = Pipe::connect(address).await;
        begun.send(b"GET /ws HTTP/1.1\r\nhost: x\r\n").await;
        assert_eq!(broker.drain().await, 0);
        idle.end().await;
        begun.end().await;
    });
}

#[test]
fn a_broker_that_is_to_stop_is_not_ready_before_it_turns_anybody_away() {
    run(async {
        let broker = Broker::start("shutdown.delay = \"500ms\"");
        let beside = Broker::elsewhere(broker.public(), broker.ingress(), broker.admin());
        let seen = async {
            while http::get(beside.admin(), "/readyz").await.status == 200 {}
            // Somebody who was directed here before that was noticed.
            let mut late = Client::connect(&beside, Wire::WebSocketJson).await;
            let publish = json!({"topic": "t", "data": 1});
            let reply = late.ask(&json!({"id": 1, "publish": publish})).await;
            assert_eq!(reply["published"]["offset"], 1, "{reply}");
            late.ending().await
        };
        let (left, ending) = tokio::join!(broker.drain(), seen);
        assert_eq!((left, ending.code), (0, 1001));
    });
}

#[test]
fn clients_are_told_when_to_come_back_on_every_wire() {
    run(async {
        let broker = Broker::start("shutdown.reconnect_after = \"1500ms\"");
        let mut clients = Vec::new();
        for wire in WIRES {
            clients.push(Client::connect(&broker, wire).await);
        }
        let told = async {
            for mut client in clients {
                assert_eq!(client.hear().await, json!({"reconnect": {"afterMs": 1500}}));
                assert_eq!(client.ending().await.code, 1001);
            }
        };
        let (left, ()) = tokio::join!(broker.drain(), told);
        assert_eq!(left, 0);
    });
}
