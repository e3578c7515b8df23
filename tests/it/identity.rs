//! Tokens over real sockets: where they may come, what they allow, how they end.
//! # Not here: what makes a token valid (`auth`), every path of permission (`session::oracle`).

use crate::client::Client;
use crate::harness::{Broker, with_broker};
use crate::http::{self, Answer};
use crate::pipe::Pipe;
use crate::socket::{Socket, request};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fanfare::auth::{Algorithm, Hash, Revocation, Signer, sign};
use fanfare::clock::{Clock, Now};
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::{Value, json};
use tempfile::TempDir;

const SECRET: &str = "a secret of the tests that is long enough for HS256";
pub(crate) const SERVICE: &str = "an-api-token-of-the-tests-0123456789";

/// A broker's configuration with one key and one API token, and what signs for it.
pub(crate) struct House {
    folder: TempDir,
    signer: Signer,
}

impl House {
    pub(crate) fn new() -> House {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret"), SECRET).expect("a file");
        let signer = Signer::of_file(Algorithm::Hs256, SECRET.as_bytes()).expect("a secret");
        House { folder, signer }
    }

    pub(crate) fn settings(&self, more: &str) -> String {
        let secret = self.folder.path().join("secret");
        format!(
            "{more}\n[auth]\naudience = 'tests'\nleeway = '0s'\n\
             [[auth.keys]]\nalgorithm = 'HS256'\nfile = '{}'\n\
             [[auth.tokens]]\nname = 'service'\nsha256 = '{}'\npublish = ['>']\n",
            secret.display(),
            Hash::of(SERVICE)
        )
    }

    pub(crate) fn token(&self, subject: &str, seconds: u64, filters: &[&str]) -> String {
        let claims = json!({
            "sub": subject, "aud": "tests", "exp": now().wall_ms / 1000 + seconds, "jti": "t-1",
            "fanfare": {"subscribe": filters, "publish": filters},
        });
        sign(&self.signer, None, &claims).expect("signed")
    }
}

pub(crate) fn now() -> Now {
    Clock::start().now()
}

fn offer(token: &str) -> String {
    format!("fanfare.v1.json, fanfare.token.{}", BASE64_URL_SAFE_NO_PAD.encode(token))
}

async fn upgrade(broker: &Broker, headers: &str) -> (Answer, Pipe) {
    let mut pipe = Pipe::connect(broker.public()).await;
    pipe.send(request(broker.public(), headers).as_bytes()).await;
    let answer = Answer::read(&mut pipe).await;
    (answer, pipe)
}

pub(crate) async fn connect(client: &mut Client, token: &str) -> Value {
    client.ask(&json!({"id": 1, "connect": {"token": token}})).await
}

async fn subscribe(client: &mut Client, topic: &str) -> Value {
    client.ask(&json!({"id": 2, "subscribe": {"topic": topic}})).await
}

fn name(reply: &Value) -> &str {
    reply["error"]["name"].as_str().unwrap_or_default()
}

/// Publishes as the service.
async fn publish(broker: &Broker, topic: &str) {
    let json = json!({"topic": topic, "data": 1}).to_string();
    assert_eq!(post(broker, &json, &format!("Bearer {SERVICE}")).await.status, 200);
}

pub(crate) async fn post(broker: &Broker, json: &str, authorization: &str) -> Answer {
    let request = http::publish_request(broker.public(), json);
    let header = format!("authorization: {authorization}\r\nhost: ");
    http::ask(broker.public(), &request.replacen("host: ", &header, 1)).await
}

#[test]
fn a_token_counts_on_every_wire_and_allows_what_it_says() {
    let house = House::new();
    with_broker(&house.settings(""), async |broker| {
        let token = house.token("alice", 600, &["room.>"]);
        for wire in [Wire::WebSocketJson, Wire::WebSocketProto, Wire::TcpProto] {
            let mut client = Client::connect(broker, wire).await;
            assert_eq!(name(&subscribe(&mut client, "room.1").await), "unauthenticated");
            let reply = connect(&mut client, &token).await;
            let expires = reply["connected"]["expiresMs"].as_u64().expect("an expiry");
            assert!((590_000..=600_000).contains(&expires), "{reply}");
            assert!(subscribe(&mut client, "room.1").await["subscribed"].is_object());
            for (topic, expected) in
                [("room", "notAllowed"), (">", "notAllowed"), ("*", "notAllowed")]
            {
                assert_eq!(name(&subscribe(&mut client, topic).await), expected, "{topic}");
            }
            publish(broker, "room.1").await;
            assert_eq!(client.hear().await["message"]["topic"], "room.1");
            for command in ["publish", "history", "presence"] {
                let mut fields = json!({"topic": "other"});
                if command == "publish" {
                    fields["data"] = 1.into();
                }
                let reply = client.ask(&json!({"id": 3, command: fields})).await;
                assert_eq!(name(&reply), "notAllowed", "{command}");
            }
            let again = client.ask(&json!({"id": 4, "connect": {"token": token}})).await;
            assert_eq!(name(&again), "badOption");
        }
    });
}

#[test]
fn a_token_comes_with_the_upgrade_in_a_header_or_a_subprotocol() {
    let house = House::new();
    with_broker(&house.settings(""), async |broker| {
        let token = house.token("alice", 600, &["room.>"]);
        let header = format!("authorization: Bearer {token}\r\n");
        let subprotocol = format!("sec-websocket-protocol: {}\r\n", offer(&token));
        for headers in [&header, &subprotocol] {
            let (answer, pipe) = upgrade(broker, headers).await;
            assert_eq!(answer.status, 101, "{answer:?}");
            let chosen = answer.header("sec-websocket-protocol");
            assert!(chosen.is_none_or(|chosen| chosen == "fanfare.v1.json"), "{answer:?}");
            let mut client = Client::of(Socket::new(pipe), Wire::WebSocketJson);
            assert!(subscribe(&mut client, "room.1").await["subscribed"].is_object());
            assert_eq!(name(&subscribe(&mut client, "else").await), "notAllowed");
        }
        let (answer, _) = upgrade(broker, &format!("{header}{subprotocol}")).await;
        answer.must_refuse(Reason::BadRequest);
    });
}

#[test]
fn what_is_wrong_with_a_token_is_not_told_but_that_it_has_expired() {
    let house = House::new();
    let other = Signer::of_file(Algorithm::Hs256, &[b'x'; 32]).expect("a secret");
    with_broker(&house.settings(""), async |broker| {
        let claims = json!({"sub": "alice", "aud": "tests", "exp": 9_000_000_000_u64});
        let strange = json!({"sub": "alice", "aud": "others", "exp": 9_000_000_000_u64});
        let old = json!({"sub": "alice", "aud": "tests", "exp": 1});
        let bad = [
            sign(&other, None, &claims).expect("signed"),
            sign(&house.signer, Some("k"), &claims).expect("signed") + "x",
            sign(&house.signer, None, &strange).expect("signed"),
            "nobody-knows-this".to_owned(),
            "a.b.c".to_owned(),
        ];
        let old = sign(&house.signer, None, &old).expect("signed");
        let mut told = Vec::new();
        let rows = bad.iter().map(|token| (token, Reason::BadToken));
        for (token, reason) in rows.chain([(&old, Reason::TokenExpired)]) {
            let (answer, _) = upgrade(broker, &format!("authorization: Bearer {token}\r\n")).await;
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            told.push((reason, answer.must_refuse(reason)));
            // A page cannot see that answer: it is let in, and told by the close.
            let header = format!("sec-websocket-protocol: {}\r\n", offer(token));
            let (answer, pipe) = upgrade(broker, &header).await;
            assert_eq!(answer.status, 101);
            let client = Client::of(Socket::new(pipe), Wire::WebSocketJson);
            assert_eq!(client.ending().await.code, reason.code());
            for wire in [Wire::WebSocketJson, Wire::WebSocketProto, Wire::TcpProto] {
                let mut client = Client::connect(broker, wire).await;
                assert_eq!(name(&connect(&mut client, token).await), reason.name());
                assert_eq!(client.ending().await.code, reason.code());
            }
            let json = json!({"topic": "a", "data": 1}).to_string();
            post(broker, &json, &format!("Bearer {token}")).await.must_refuse(reason);
        }
        told.sort_by_key(|(reason, _)| reason.code());
        told.dedup();
        assert_eq!(told.len(), 2, "{told:?}");
    });
}

#[test]
fn a_token_in_a_url_is_refused_where_one_is_needed_and_where_none_is() {
    let house = House::new();
    for settings in [house.settings(""), String::new()] {
        with_broker(&settings, async |broker| {
            let request = request(broker.public(), "").replacen("/ws", "/ws?token=abc", 1);
            http::ask(broker.public(), &request).await.must_refuse(Reason::BadRequest);
            let request = http::publish_request(broker.public(), "{}");
            let request = request.replacen("/publish", "/publish?access_token=abc", 1);
            http::ask(broker.public(), &request).await.must_refuse(Reason::BadRequest);
        });
    }
}

#[test]
fn who_shows_no_token_in_time_is_closed_and_who_shows_one_stays() {
    let house = House::new();
    with_broker(&house.settings("limits.authenticate = '3s'"), async |broker| {
        let token = house.token("alice", 600, &["room.>"]);
        let mut known = Client::connect(broker, Wire::WebSocketJson).await;
        connect(&mut known, &token).await;
        for wire in [Wire::WebSocketJson, Wire::TcpProto] {
            let mut client = Client::connect(broker, wire).await;
            assert!(client.ask(&json!({"id": 1, "connect": {}})).await["connected"].is_object());
            assert_eq!(client.ending().await.code, 4502);
        }
        assert!(known.ask(&json!({"id": 5, "ping": {}})).await["pong"].is_object());
    });
}

#[test]
fn a_stranger_who_goes_on_asking_is_closed_before() {
    let house = House::new();
    with_broker(&house.settings("limits.bad_commands_max = 2"), async |broker| {
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        for command in ["ping", "ping", "ping"] {
            let reply = client.ask(&json!({"id": 1, command: {}})).await;
            assert_eq!(name(&reply), "unauthenticated");
        }
        assert_eq!(client.ending().await.code, 4500);
    });
}

#[test]
fn a_refresh_extends_and_ends_what_the_new_token_does_not_allow() {
    let house = House::new();
    with_broker(&house.settings(""), async |broker| {
        for wire in [Wire::WebSocketJson, Wire::WebSocketProto, Wire::TcpProto] {
            let mut client = Client::connect(broker, wire).await;
            connect(&mut client, &house.token("alice", 3, &["room.>", "news"])).await;
            subscribe(&mut client, "room.1").await;
            subscribe(&mut client, "room.2.*").await;
            subscribe(&mut client, "news").await;
            let mallory = house.token("mallory", 600, &[">"]);
            for (token, expected) in [(&*mallory, "notAllowed"), ("x.y.z", "badToken")] {
                let reply = client.ask(&json!({"id": 3, "refresh": {"token": token}})).await;
                assert_eq!(name(&reply), expected);
            }
            let token = house.token("alice", 600, &["news", "room.2.>"]);
            client.say(&json!({"id": 4, "refresh": {"token": token}})).await;
            let ended = client.hear().await;
            let expected = json!({"unsubscribed": {"topic": "room.1", "reason": "notAllowed"}});
            assert_eq!(ended, expected);
            let reply = client.hear().await;
            assert_eq!(reply["id"], 4, "{reply}");
            let expires = reply["refreshed"]["expiresMs"].as_u64().expect("an expiry");
            assert!((590_000..=600_000).contains(&expires), "{reply}");
            publish(broker, "room.1").await;
            publish(broker, "news").await;
            assert_eq!(client.hear().await["message"]["topic"], "news");
            assert_eq!(name(&subscribe(&mut client, "room.1").await), "notAllowed");
        }
    });
}

#[test]
fn a_token_that_expires_ends_its_connection_and_no_other() {
    let house = House::new();
    with_broker(&house.settings(""), async |broker| {
        let mut lasting = Client::connect(broker, Wire::WebSocketJson).await;
        connect(&mut lasting, &house.token("bob", 600, &["room.>"])).await;
        let mut ending = Vec::new();
        for wire in [Wire::WebSocketJson, Wire::WebSocketProto, Wire::TcpProto] {
            let mut client = Client::connect(broker, wire).await;
            connect(&mut client, &house.token("alice", 2, &["room.>"])).await;
            ending.push(client);
        }
        for client in ending {
            assert_eq!(client.ending().await.code, 4401);
        }
        assert!(lasting.ask(&json!({"id": 5, "ping": {}})).await["pong"].is_object());
        assert_eq!(broker.count("fanfare_closes_total{reason=\"tokenExpired\"}").await, 3);
    });
}

#[test]
fn a_revocation_ends_live_connections_and_refuses_the_next() {
    let house = House::new();
    with_broker(&house.settings(""), async |broker| {
        let alice = house.token("alice", 600, &["room.>"]);
        let bob = house.token("bob", 600, &["room.>"]);
        let mut gone = Vec::new();
        for wire in [Wire::WebSocketJson, Wire::WebSocketProto, Wire::TcpProto] {
            let mut client = Client::connect(broker, wire).await;
            connect(&mut client, &alice).await;
            gone.push(client);
        }
        let mut stays = Client::connect(broker, Wire::WebSocketJson).await;
        connect(&mut stays, &bob).await;
        // Nobody asks the shards to look: they do within a second.
        let revoked = Revocation::Subject("alice".into());
        broker.guard().revoke(revoked.clone(), u64::MAX, now()).expect("room");
        for client in gone {
            assert_eq!(client.ending().await.code, 4503);
        }
        let mut again = Client::connect(broker, Wire::WebSocketJson).await;
        assert_eq!(name(&connect(&mut again, &alice).await), "badToken");
        assert!(stays.ask(&json!({"id": 5, "ping": {}})).await["pong"].is_object());
        assert!(broker.guard().lift(&revoked));
        let mut again = Client::connect(broker, Wire::WebSocketJson).await;
        assert!(connect(&mut again, &alice).await["connected"].is_object());
    });
}

#[test]
fn rules_that_change_count_for_connections_that_are_there() {
    let house = House::new();
    let open = "[auth.anonymous]\nsubscribe = ['public.>', 'news']";
    let settings = house.settings("") + open;
    with_broker(&settings, async |broker| {
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        subscribe(&mut client, "public.*").await;
        subscribe(&mut client, "news").await;
        let less = settings.replace("'public.>', ", "");
        let config = crate::harness::config(&less);
        let authority = fanfare::keys::authority(&config.auth).expect("sound");
        broker.guard().replace(&authority);
        broker.review();
        assert_eq!(client.hear().await["unsubscribed"]["topic"], "public.*");
        let none = crate::harness::config(&house.settings(""));
        let authority = fanfare::keys::authority(&none.auth).expect("sound");
        broker.guard().replace(&authority);
        broker.review();
        assert_eq!(client.ending().await.code, 4503);
    });
}

#[test]
fn who_shows_no_token_may_do_what_a_rule_says_and_nothing_else() {
    let house = House::new();
    let open = "[auth.anonymous]\nsubscribe = ['public.>']\npublish = ['inbox']";
    with_broker(&(house.settings("") + open), async |broker| {
        for wire in [Wire::WebSocketJson, Wire::TcpProto] {
            let mut client = Client::connect(broker, wire).await;
            assert!(subscribe(&mut client, "public.*").await["subscribed"].is_object());
            assert_eq!(name(&subscribe(&mut client, "room.1").await), "unauthenticated");
            // A token says all that its subject may do: what everybody may do is no part of it.
            let token = house.token("alice", 600, &["room.>"]);
            client.say(&json!({"id": 1, "connect": {"token": token}})).await;
            assert_eq!(client.hear().await["unsubscribed"]["topic"], "public.*");
            assert!(client.hear().await["connected"].is_object());
        }
        let post = async |topic: &str, header: &str| {
            let json = json!({"topic": topic, "data": 1}).to_string();
            post(broker, &json, header).await
        };
        assert_eq!(post("inbox", "Basic abc").await.status, 200);
        post("room.1", "Basic abc").await.must_refuse(Reason::Unauthenticated);
        let token = format!("Bearer {}", house.token("alice", 600, &["room.>"]));
        assert_eq!(post("room.1", &token).await.status, 200);
        post("inbox", &token).await.must_refuse(Reason::NotAllowed);
        let list = json!([{"topic": "room.1", "data": 1}, {"topic": "x", "data": 1}]).to_string();
        let answer = self::post(broker, &list, &token).await.json();
        assert_eq!(answer[0]["offset"], 2, "{answer}");
        assert_eq!(answer[1]["error"]["name"], "notAllowed", "{answer}");
    });
}

#[test]
fn no_token_is_compressed_for_before_it_was_shown() {
    let house = House::new();
    with_broker(&house.settings("websocket.compression = true"), async |broker| {
        let offer = "sec-websocket-extensions: permessage-deflate\r\n";
        let (answer, _pipe) = upgrade(broker, offer).await;
        assert_eq!((answer.status, answer.header("sec-websocket-extensions")), (101, None));
        let token = house.token("alice", 600, &["room.>"]);
        let header = format!("{offer}authorization: Bearer {token}\r\n");
        let (answer, _pipe) = upgrade(broker, &header).await;
        assert!(answer.header("sec-websocket-extensions").is_some(), "{answer:?}");
    });
}

#[test]
fn users_publish_so_often_and_services_as_often_as_they_can() {
    let house = House::new();
    let settings = house.settings("limits.publish_rate = 1\nlimits.publish_burst = 3");
    with_broker(&settings, async |broker| {
        for (token, taken) in [(house.token("ann", 3600, &["a"]), 3), (SERVICE.into(), 10)] {
            let mut client = Client::connect(broker, Wire::TcpProto).await;
            connect(&mut client, &token).await;
            let mut answers = Vec::new();
            for id in 2..12 {
                let publish = json!({"topic": "a", "data": id});
                answers.push(client.ask(&json!({"id": id, "publish": publish})).await);
            }
            let refused = |answer: &&Value| answer["error"]["name"] == "tooOften";
            let published = |answer: &&Value| answer["published"].is_object();
            assert!(answers.iter().take(taken).all(|answer| published(&answer)), "{answers:?}");
            // A second may pass on a busy machine, and bring one back.
            let count = answers.iter().filter(refused).count();
            assert_eq!(count > 0, taken < 10, "{answers:?}");
            assert_eq!(answers.iter().filter(published).count() + count, 10, "{answers:?}");
        }
        let list = json!(vec![json!({"topic": "a", "data": 1}); 10]).to_string();
        for (token, is_bounded) in
            [(house.token("ann", 3600, &["a"]), true), (SERVICE.into(), false)]
        {
            let answers = post(broker, &list, &format!("Bearer {token}")).await.json();
            let answers = answers.as_array().expect("an answer to each");
            let refused = answers.iter().filter(|it| it["error"]["name"] == "tooOften").count();
            assert_eq!(refused > 0, is_bounded, "{answers:?}");
            assert!(answers.iter().take(3).all(|it| it["offset"].is_u64()), "{answers:?}");
        }
        assert!(broker.count("fanfare_refusals_total{reason=\"tooOften\"}").await > 0);
    });
}
