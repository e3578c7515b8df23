//! The window of the dashboard: what of the admin API the public listener shows, and to whom.
//! # Not here: the admin listener (`admin`), the pages that a browser sees (`tests/page`).

use crate::client::Client;
use crate::harness::{Broker, run, with_broker};
use crate::http::{self, Answer};
use crate::pipe::Pipe;
use fanfare::auth::Hash;
use fanfare::reason::Reason;
use fanfare::topics::message::Wire;
use serde_json::json;

const SHOWN: [&str; 3] = ["overview", "connections/slowest", "topics/hottest?overMs=1"];
const HIDDEN: [&str; 6] = ["connections", "connections/0-0.1", "topics", "drain", "revoke", ""];

/// A request to the public listener for a page of the window, with these headers.
async fn look(broker: &Broker, page: &str, headers: &str) -> Answer {
    ask(broker, ("GET", page), headers).await
}

async fn ask(broker: &Broker, (method, page): (&str, &str), headers: &str) -> Answer {
    let public = broker.public();
    let host =
        if headers.contains("host:") { String::new() } else { format!("host: {public}\r\n") };
    let head = format!("{method} /admin/v1/{page} HTTP/1.1\r\n{host}{headers}");
    http::ask(public, &format!("{head}connection: close\r\ncontent-length: 0\r\n\r\n")).await
}

#[test]
fn there_is_none_unless_somebody_asks_for_it() {
    with_broker("", async |broker| {
        for page in SHOWN.into_iter().chain(HIDDEN) {
            look(broker, page, "").await.must_refuse(Reason::NotFound);
        }
    });
}

#[test]
fn it_shows_this_machine_three_pages_and_takes_no_command() {
    with_broker("insecure = true\nadmin.dashboard = true", async |broker| {
        let mut client = Client::connect(broker, Wire::WebSocketJson).await;
        let publish = json!({"id": 1, "publish": {"topic": "a.b", "data": 1}});
        assert!(client.ask(&publish).await["published"].is_object());
        for page in SHOWN {
            let answer = look(broker, page, "").await;
            assert_eq!(answer.status, 200, "{page}: {answer:?}");
            ask(broker, ("POST", page), "").await.must_refuse(Reason::MethodNotAllowed);
        }
        let overview = look(broker, "overview", "").await.json();
        assert_eq!(overview["publishedTotal"], 1, "{overview}");
        for page in HIDDEN {
            look(broker, page, "").await.must_refuse(Reason::NotFound);
            ask(broker, ("POST", page), "").await.must_refuse(Reason::NotFound);
        }
    });
}

#[test]
fn it_is_shut_for_pages_of_others_and_for_whom_a_proxy_brings() {
    let settings = "insecure = true\nadmin.dashboard = true\n\
                    websocket.origins = ['https://app.example', 'null']";
    with_broker(settings, async |broker| {
        let public = broker.public();
        let rows = [
            // Even those that may connect.
            ("origin: https://app.example\r\n", Reason::BadOrigin),
            ("origin: null\r\n", Reason::BadOrigin),
            ("host: evil.example\r\n", Reason::BadHost),
            ("x-forwarded-for: 192.0.2.1\r\n", Reason::NotAllowed),
            ("forwarded: for=192.0.2.1\r\n", Reason::NotAllowed),
        ];
        for (headers, reason) in rows {
            look(broker, "overview", headers).await.must_refuse(reason);
        }
        // So does nginx unless told otherwise, and it says nothing else of itself.
        let old = format!("GET /admin/v1/overview HTTP/1.0\r\nhost: {public}\r\n\r\n");
        http::ask(public, &old).await.must_refuse(Reason::NotAllowed);
        let own = format!("origin: http://{public}\r\n");
        assert_eq!(look(broker, "overview", &own).await.status, 200);
        look(broker, "overview?token=x", "").await.must_refuse(Reason::BadRequest);
    });
}

#[test]
fn with_a_token_it_is_for_whoever_shows_it_until_there_is_another() {
    run(async {
        let settings =
            |token: &str| format!("admin.dashboard = true\nadmin.token = '{}'", Hash::of(token));
        let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
        let mut broker = Broker::start(&settings("first"));
        look(&broker, "overview", "").await.must_refuse(Reason::Unauthenticated);
        look(&broker, "overview", &bearer("wrong")).await.must_refuse(Reason::BadToken);
        let by_proxy = format!("{}x-forwarded-for: 192.0.2.1\r\n", bearer("first"));
        assert_eq!(look(&broker, "overview", &by_proxy).await.status, 200);
        let mut before = Pipe::connect(broker.public()).await;
        let first = bearer("first");
        let again = format!("GET /admin/v1/overview HTTP/1.1\r\nhost: localhost\r\n{first}\r\n");
        before.send(again.as_bytes()).await;
        assert_eq!(Answer::read(&mut before).await.status, 200);
        broker.reload(&settings("second")).await.expect("sound");
        before.send(again.as_bytes()).await;
        Answer::read(&mut before).await.must_refuse(Reason::BadToken);
        look(&broker, "overview", &bearer("first")).await.must_refuse(Reason::BadToken);
        assert_eq!(look(&broker, "overview", &bearer("second")).await.status, 200);
        broker.reload("").await.expect("sound");
        look(&broker, "overview", &bearer("second")).await.must_refuse(Reason::NotFound);
        assert_eq!(broker.drain().await, 0);
    });
}

#[test]
fn where_others_can_reach_it_nothing_is_shown_without_a_token() {
    let mut config = crate::harness::config("insecure = true\nadmin.dashboard = true");
    config.listen.public = "0.0.0.0:0".parse().expect("an address");
    run(async {
        let broker = Broker::of(&config);
        let here = format!("127.0.0.1:{}", broker.public().port());
        let request = format!("GET /admin/v1/overview HTTP/1.1\r\nhost: {here}\r\n\r\n");
        let answer = http::ask(here.parse().expect("an address"), &request).await;
        answer.must_refuse(Reason::NotAllowed);
        assert_eq!(broker.drain().await, 0);
    });
}
