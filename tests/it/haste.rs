//! Who asks for more in a second than they may, and who takes too long: each is told so, and nobody
//! else notices.
//! # Invariants: a rate of one a second and everything in one write, so that what a busy machine lets
//! pass in between is never all.
//! # Not here: how often somebody may connect (`arrivals`), or publish (`identity`).

use crate::client::{Client, WIRES};
use crate::harness::{Broker, Bystander, with_broker, within};
use crate::http;
use crate::identity::{House, SERVICE, connect, post};
use crate::socket::{CONTINUATION, FIN, PING, PONG, Socket, TEXT, frame};
use fanfare::topics::message::Wire;
use serde_json::{Value, json};

/// What the broker says to these commands, which one read brings.
async fn ask_together(client: &mut Client, commands: &[Value]) -> Vec<Value> {
    client.say_together(commands).await;
    let mut answers = Vec::new();
    for command in commands {
        let answer = client.hear().await;
        assert_eq!(answer["id"], command["id"], "{answer}");
        answers.push(answer);
    }
    answers
}

/// How many of these were refused by this name. All others must be what was asked for.
fn refused(answers: &[Value], name: &str, expected: &str) -> usize {
    let is_refused = |answer: &&Value| !answer["error"].is_null();
    for answer in answers {
        if is_refused(&answer) {
            let (found, retry) = (&answer["error"]["name"], &answer["error"]["retry"]);
            assert_eq!((found, retry), (&json!(name), &json!("later")), "{answer}");
        } else {
            assert!(answer[expected].is_object(), "{answer}");
        }
    }
    answers.iter().filter(is_refused).count()
}

async fn refusals(broker: &Broker, name: &str) -> usize {
    let count = broker.count(&format!("fanfare_refusals_total{{reason=\"{name}\"}}")).await;
    usize::try_from(count).expect("few")
}

#[test]
fn pings_and_pongs_without_end_end_the_connection_and_nobody_else_notices() {
    let settings = "limits.control_rate = 1\nlimits.control_burst = 5";
    with_broker(settings, async |broker| {
        let mut bystander = Bystander::join(broker).await;
        for opcode in [PING, PONG] {
            let mut socket = Socket::open(broker, None).await;
            socket.pipe.send(&frame(FIN | opcode, b"x").repeat(1_000)).await;
            let mut answers = 0;
            let close = loop {
                let frame = socket.frame().await;
                if frame.opcode != PONG {
                    break frame.close();
                }
                answers += 1;
            };
            let (code, reason) = close.expect("a code");
            assert_eq!(code, 4504, "{reason}");
            assert!(reason.starts_with("tooManyPings: "), "{reason}");
            let expected = if opcode == PING { 5..1_000 } else { 0..1 };
            assert!(expected.contains(&answers), "{answers} answers");
            bystander.is_fine().await;
        }
        assert_eq!(broker.count("fanfare_closes_total{reason=\"tooManyPings\"}").await, 2);
    });
}

#[test]
fn pongs_that_answer_our_pings_are_never_too_many() {
    let settings = "websocket.ping_interval = \"2s\"\nwebsocket.pong_timeout = \"2s\"\n\
                    limits.control_rate = 1\nlimits.control_burst = 1";
    with_broker(settings, async |broker| {
        let mut socket = Socket::open(broker, None).await;
        let command = br#"{"id":1,"ping":{}}"#;
        let mut pings = 0;
        while pings < 3 {
            // It is alive, and its pongs are late. Beside each ping is a text that a page can see.
            if socket.frame().await.opcode == PING {
                socket.send(TEXT, command).await;
                pings += 1;
            }
        }
        socket.pipe.send(&frame(FIN | PONG, b"").repeat(pings)).await;
        socket.send(TEXT, br#"{"id":2,"ping":{}}"#).await;
        while socket.frame().await.text() != r#"{"id":2,"pong":{}}"# {}
        // What answers nothing counts.
        socket.pipe.send(&frame(FIN | PONG, b"").repeat(100)).await;
        let close = loop {
            let frame = socket.frame().await;
            if ![PING, TEXT].contains(&frame.opcode) {
                break frame.close();
            }
        };
        assert_eq!(close.map(|(code, _)| code), Some(4504));
    });
}

#[test]
fn whoever_reconnects_subscribes_to_everything_again_at_once() {
    for (settings, count) in [("", 128), ("limits.subscriptions_max = 300", 300)] {
        with_broker(settings, async |broker| {
            let subscribe = |id: u64| json!({"id": id, "subscribe": {"topic": format!("t.{id}"), "snapshot": false}});
            let commands: Vec<Value> = (1..=count).map(subscribe).collect();
            for wire in WIRES {
                let mut client = Client::connect(broker, wire).await;
                let answers = ask_together(&mut client, &commands).await;
                assert_eq!(refused(&answers, "", "subscribed"), 0);
            }
            assert_eq!(refusals(broker, "subscribesTooOften").await, 0);
        });
    }
}

#[test]
fn subscribing_too_often_is_refused_and_may_be_tried_again() {
    let settings = "limits.subscribe_rate = 1\nlimits.subscribe_burst = 1\n\
                    limits.subscriptions_max = 4\nlimits.filters_max = 4";
    with_broker(settings, async |broker| {
        let mut bystander = Bystander::join(broker).await;
        let mut count = 0;
        for wire in WIRES {
            let mut client = Client::connect(broker, wire).await;
            let subscribe = json!({"id": 1, "subscribe": {"topic": "t"}});
            let update = json!({"id": 2, "update": {"topic": "t", "policy": "latest"}});
            let unsubscribe = json!({"id": 3, "unsubscribe": {"topic": "t"}});
            let mut commands = vec![subscribe.clone()];
            commands.extend(vec![update; 20]);
            let answers = ask_together(&mut client, &commands).await;
            // Never less at once than there may be subscriptions.
            assert_eq!(refused(&answers[..1], "", "subscribed"), 0);
            assert_eq!(refused(&answers[1..4], "", "updated"), 0);
            let now = refused(&answers[4..], "subscribesTooOften", "updated");
            assert!(now > 0, "{answers:?}");
            count += now;
            // To leave is always allowed.
            assert!(client.ask(&unsubscribe).await["unsubscribed"].is_object());
            let again = async {
                loop {
                    let answer = client.ask(&subscribe).await;
                    if refused(&[answer], "subscribesTooOften", "subscribed") == 0 {
                        return;
                    }
                    count += 1;
                }
            };
            within("the next subscription", again).await;
            assert_eq!(refusals(broker, "subscribesTooOften").await, count);
        }
        bystander.is_fine().await;
    });
}

#[test]
fn a_message_that_does_not_end_is_given_up_and_one_that_comes_in_pieces_is_not() {
    let settings = "limits.message_timeout = \"3s\"\nlimits.control_rate = \"off\"";
    with_broker(settings, async |broker| {
        let command = br#"{"id":1,"ping":{}}"#;
        let whole = frame(FIN | TEXT, command);
        let (first, second) = whole.split_at(9);
        let ping = frame(FIN | PING, b"x");
        let open = frame(TEXT, b"{");
        let more = frame(CONTINUATION, b" ");
        // One byte, half a frame, fragments without the last one; each behind a message that was whole.
        let begun = [&whole[..1], first, &open, &[&open[..], &more, &ping].concat()];
        let mut endless = Vec::new();
        for bytes in begun {
            let mut socket = Socket::open(broker, None).await;
            socket.pipe.send(&[&whole[..], bytes].concat()).await;
            endless.push(socket);
        }
        let tcp = Client::connect(broker, Wire::TcpProto).await;
        let mut tcp_endless = Client::connect(broker, Wire::TcpProto).await;
        tcp_endless.ask(&json!({"id": 1, "ping": {}})).await;
        tcp_endless.pipe().send(&[0, 0, 0]).await;
        let mut busy = Socket::open(broker, None).await;
        busy.pipe.send(first).await;
        let closes = "fanfare_closes_total{reason=\"messageTooLate\"}";
        // This one is in the middle of a message whenever it is looked at, but each has its end.
        let together = [second, first].concat();
        let all = async {
            while broker.count(closes).await < 5 {
                // Signs of life between fragments do not make it end.
                endless[3].pipe.try_send(&ping).await;
                busy.pipe.send(&together).await;
                assert!(busy.frame().await.text().contains("pong"));
            }
        };
        within("all to be given up", all).await;
        for mut socket in endless {
            let close = loop {
                let frame = socket.frame().await;
                if ![TEXT, PONG].contains(&frame.opcode) {
                    break frame.close();
                }
            };
            let (code, reason) = close.expect("a code");
            assert_eq!(code, 4412, "{reason}");
        }
        let ending = tcp_endless.ending().await;
        assert_eq!((ending.code, ending.name.as_str()), (4412, "messageTooLate"));
        busy.pipe.send(second).await;
        assert!(busy.frame().await.text().contains("pong"));
        drop(tcp);
        assert_eq!(broker.count(closes).await, 5);
    });
}

/// Publishes to so many topics of this name at once, each new; then to the first once more.
async fn publish_to_many(client: &mut Client, name: &str) -> Vec<Value> {
    let publish =
        |id: u64| json!({"id": id, "publish": {"topic": format!("{name}.{id}"), "data": 1}});
    let mut commands: Vec<Value> = (1..=20).map(publish).collect();
    commands.push(publish(1));
    ask_together(client, &commands).await
}

#[test]
fn users_begin_so_many_topics_and_services_as_many_as_they_want() {
    let house = House::new();
    let settings = "limits.topic_rate = 1\nlimits.topic_burst = 3\nlimits.publish_rate = \"off\"";
    with_broker(&house.settings(settings), async |broker| {
        let user = house.token("ann", 3600, &[">"]);
        let name = "tooManyNewTopics";
        let mut count = 0;
        for (index, wire) in WIRES.into_iter().enumerate() {
            let mut client = Client::connect(broker, wire).await;
            connect(&mut client, &user).await;
            let answers = publish_to_many(&mut client, &format!("u{index}")).await;
            assert_eq!(refused(&answers[..3], name, "published"), 0);
            let now = refused(&answers, name, "published");
            assert!(now > 0, "{answers:?}");
            // What is there already may be published to.
            assert!(answers[20]["published"].is_object(), "{answers:?}");
            let topics = broker.count("fanfare_topics").await;
            // A subscription begins a topic, too.
            let subscribe = |id: u64, topic: &str| json!({"id": id, "subscribe": {"topic": format!("u{index}.{topic}")}});
            let mut commands: Vec<Value> =
                (1..=9).map(|id| subscribe(id, &format!("s{id}"))).collect();
            commands.push(subscribe(10, "1"));
            let answers = ask_together(&mut client, &commands).await;
            let more = refused(&answers, name, "subscribed");
            assert!(more > 0 && answers[9]["subscribed"].is_object(), "{answers:?}");
            assert_eq!(broker.count("fanfare_topics").await, topics + 9 - more as u64);
            count += now + more;
            assert_eq!(refusals(broker, name).await, count);

            let mut service = Client::connect(broker, wire).await;
            connect(&mut service, SERVICE).await;
            let answers = publish_to_many(&mut service, &format!("s{index}")).await;
            assert_eq!(refused(&answers, name, "published"), 0);
        }
        let list = |name: &str| {
            let publish = |id: u64| json!({"topic": format!("{name}.{id}"), "data": 1});
            json!((1..=20).map(publish).collect::<Vec<_>>()).to_string()
        };
        for (token, name, is_rated) in [(user.as_str(), "h", true), (SERVICE, "hs", false)] {
            let answers = post(broker, &list(name), &format!("Bearer {token}")).await.json();
            let answers = answers.as_array().expect("an answer to each");
            let refused = answers.iter().filter(|it| it["error"]["name"] == "tooManyNewTopics");
            assert_eq!(refused.count() > 0, is_rated, "{answers:?}");
        }
    });
}

#[test]
fn where_nobody_is_asked_who_they_are_topics_and_deliveries_have_no_rate() {
    let settings = "limits.topic_rate = 1\nlimits.topic_burst = 1\nlimits.delivery_rate = 1";
    with_broker(settings, async |broker| {
        let mut client = Client::connect(broker, Wire::TcpProto).await;
        client.ask(&json!({"id": 1, "subscribe": {"topic": "other.>"}})).await;
        let answers = publish_to_many(&mut client, "t").await;
        assert_eq!(refused(&answers, "", "published"), 0);
        let list = json!(vec![json!({"topic": "u.1", "data": 1}); 10]).to_string();
        assert!(!http::publish(broker.public(), &list).await.text().contains("error"));
    });
}

/// Publishes often to one topic. Returns how many were taken, and how many refused.
async fn publish_often(client: &mut Client, topic: &str) -> (usize, usize) {
    let publish = |id: u64| json!({"id": id, "publish": {"topic": topic, "data": id}});
    let commands: Vec<Value> = (1..=50).map(publish).collect();
    let answers = ask_together(client, &commands).await;
    let refused = refused(&answers, "tooManyDeliveries", "published");
    (answers.len() - refused, refused)
}

#[test]
fn what_users_publish_is_delivered_so_often_and_what_services_publish_as_often_as_they_want() {
    let house = House::new();
    let settings = "limits.delivery_rate = 10\nlimits.publish_rate = \"off\"";
    with_broker(&house.settings(settings), async |broker| {
        let user = house.token("ann", 3600, &["a.>"]);
        // Six listen to one topic, and four of them to all of them, on all shards.
        let mut listeners = Vec::new();
        for index in 0..10 {
            let mut client = Client::connect(broker, Wire::WebSocketJson).await;
            connect(&mut client, &user).await;
            let topic = if index < 6 { "a.exact" } else { "a.>" };
            client.ask(&json!({"id": 2, "subscribe": {"topic": topic}})).await;
            listeners.push(client);
        }
        let mut counts = Vec::new();
        for topic in ["a.exact", "a.new", "a.quiet.not"] {
            let mut client = Client::connect(broker, Wire::WebSocketProto).await;
            connect(&mut client, &user).await;
            counts.push(publish_often(&mut client, topic).await);
        }
        // Ten at once, and then whole seconds for a message each.
        for (taken, refused) in &counts {
            assert!((2..20).contains(taken) && *refused > 0, "{counts:?}");
        }
        // The topic is new, and its first message is to be delivered to four already.
        assert!(counts[1].0 >= 3, "{counts:?}");
        let all: usize = counts.iter().map(|(_, refused)| refused).sum();
        assert_eq!(refusals(broker, "tooManyDeliveries").await, all);
        for (index, listener) in listeners.iter_mut().enumerate() {
            let heard = if index < 6 { counts[0].0 } else { counts.iter().map(|(n, _)| n).sum() };
            let mut messages = 0;
            while messages < heard {
                messages += usize::from(listener.hear().await["message"].is_object());
            }
        }
        let mut service = Client::connect(broker, Wire::WebSocketProto).await;
        connect(&mut service, SERVICE).await;
        assert_eq!(publish_often(&mut service, "a.exact").await, (50, 0));
        // Nobody listens any more.
        drop(listeners);
        broker.until("fanfare_connections{wire=\"websocket_json\"}", |open| open == 0).await;
        let mut client = Client::connect(broker, Wire::WebSocketProto).await;
        connect(&mut client, &user).await;
        assert_eq!(publish_often(&mut client, "a.exact").await, (50, 0));
    });
}
