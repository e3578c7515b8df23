//! When a client connects, waits, gives up and ends; told the time, without a socket.

use super::*;
use crate::dialect::schema::{event::Body, publish};
use calls::Reply;
use std::task::Waker;

fn settings() -> Settings {
    Settings {
        name: String::new(),
        backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(30), 7),
        stable: Duration::from_secs(10),
        patience: Duration::from_secs(10),
        silence: Duration::from_secs(10),
        answer: Duration::from_secs(30),
        queue_max: 3,
        retry_max: Duration::from_mins(4),
        tokens: Tokens::Fixed,
    }
}

fn now(ms: u64) -> Now {
    Now::at_ms(ms)
}

fn event(id: u64, body: Body) -> schema::Event {
    schema::Event { id, body: Some(body) }
}

/// The ids and actions of what is to be sent.
fn sent(pilot: &mut Pilot) -> Vec<(u64, Action)> {
    let commands = std::iter::from_fn(|| pilot.next_command());
    commands.map(|command| (command.id, command.action.expect("an action"))).collect()
}

/// Connects, and says hello for the server.
fn connect(pilot: &mut Pilot, ms: u64) {
    let hello = schema::Connected { ping_ms: 25_000, ..Default::default() };
    greet(pilot, ms, hello);
}

fn greet(pilot: &mut Pilot, ms: u64, hello: schema::Connected) {
    pilot.opened(now(ms), None);
    let commands = sent(pilot);
    let [(id, Action::Connect(_))] = commands.as_slice() else { panic!("{commands:?}") };
    pilot.heard(now(ms), event(*id, Body::Connected(hello))).expect("understood");
}

fn connected(ms: u64) -> Pilot {
    let mut pilot = Pilot::new(settings(), now(ms));
    assert_eq!(pilot.order(now(ms)), Order::Dial);
    connect(&mut pilot, ms);
    pilot
}

fn publish(pilot: &mut Pilot, ms: u64, text: &str) -> Result<oneshot::Receiver<Reply>, Error> {
    let payload = Some(publish::Payload::Text(text.into()));
    let publish = schema::Publish { topic: "t".into(), payload, ..Default::default() };
    let (reply, answer) = oneshot::channel();
    pilot.call(now(ms), Action::Publish(publish), reply).map(|()| answer)
}

fn texts(commands: &[(u64, Action)]) -> Vec<String> {
    let text = |(_, action): &(u64, Action)| match action {
        Action::Publish(schema::Publish {
            payload: Some(publish::Payload::Text(text)), ..
        }) => Some(text.clone()),
        _ => None,
    };
    commands.iter().filter_map(text).collect()
}

fn subscribe(pilot: &mut Pilot, topic: &str, buffer: usize) -> u64 {
    let target = Target::parse(topic).expect("a target");
    let ready = oneshot::channel().0;
    let id = pilot.subscribe(now(0), (target, Asked::default()), (buffer, ready));
    id.expect("room")
}

/// Subscribes, and accepts it for the server.
fn subscribed(pilot: &mut Pilot, topic: &str, buffer: usize) -> u64 {
    let feed = subscribe(pilot, topic, buffer);
    let commands = sent(pilot);
    let [(id, Action::Subscribe(_))] = commands.as_slice() else { panic!("{commands:?}") };
    let epoch = crate::topics::message::Epoch::from_bits(1).to_string();
    let position = Some(schema::Position { epoch, offset: 0 });
    let answer = schema::Subscribed { topic: topic.into(), position, ..Default::default() };
    pilot.heard(now(0), event(*id, Body::Subscribed(answer))).expect("understood");
    feed
}

fn message(topic: &str, offset: u64) -> schema::Event {
    let payload = Some(schema::message::Payload::Text(offset.to_string()));
    let message = schema::Message { topic: topic.into(), offset, payload, ..Default::default() };
    event(0, Body::Message(message))
}

fn poll(pilot: &mut Pilot, id: u64) -> (Poll<Option<Result<Event, Error>>>, Room) {
    pilot.poll(id, &Context::from_waker(Waker::noop()))
}

#[test]
fn waits_grow_at_random_and_a_connection_that_lasts_begins_anew() {
    let mut pilot = connected(0);
    let mut ms = 1_000;
    let mut bound = 500;
    for _ in 0..12 {
        pilot.lost(now(ms), Fault::Ended);
        let Order::Wait(delay) = pilot.order(now(ms)) else { panic!("it does not wait") };
        assert!(delay.as_millis() <= bound, "{delay:?} of {bound}");
        ms += 40_000;
        assert_eq!(pilot.order(now(ms)), Order::Dial);
        bound = (bound * 2).min(30_000);
    }
    connect(&mut pilot, ms);
    pilot.lost(now(ms + 10_000), Fault::Ended);
    let Order::Wait(delay) = pilot.order(now(ms + 10_000)) else { panic!("it does not wait") };
    assert!(delay.as_millis() <= 500, "{delay:?}");
}

#[test]
fn a_server_that_says_when_is_obeyed_once() {
    let mut pilot = connected(0);
    let later = Body::Reconnect(schema::Reconnect { after_ms: 60_000 });
    pilot.heard(now(1), event(0, later)).expect("understood");
    pilot.lost(now(2), Fault::Closed { code: 1001, text: "goingAway: x".into() });
    let Order::Wait(delay) = pilot.order(now(2)) else { panic!("it does not wait") };
    assert!((60_000..=60_500).contains(&delay.as_millis()), "{delay:?}");
    pilot.order(now(70_000));
    pilot.lost(now(70_000), Fault::Ended);
    let Order::Wait(delay) = pilot.order(now(70_000)) else { panic!("it does not wait") };
    assert!(delay.as_millis() <= 1_000, "{delay:?}");
}

#[test]
fn what_says_do_not_come_back_ends_everything_with_its_reason() {
    let closed = |code| Fault::Closed { code, text: "name: sentence".into() };
    let refusal = |retry: schema::Retry| {
        Some(Box::new(schema::Error { retry: retry.into(), ..Default::default() }))
    };
    let status = |retry| Fault::Handshake { status: 400, refusal: refusal(retry) };
    let cases = [
        (closed(1000), true),
        (closed(1001), false),
        (closed(1006), false),
        (closed(1009), true),
        (closed(1011), false),
        // Without another token it would be refused again.
        (closed(4401), true),
        (closed(4408), false),
        (closed(4500), true),
        (closed(4999), true),
        (status(schema::Retry::Never), true),
        (status(schema::Retry::Later), false),
        (Fault::Subprotocol { offered: "a", chosen: "b".into() }, true),
        (Fault::Malformed("x".into()), false),
        (Fault::Ended, false),
    ];
    for (fault, is_end) in cases {
        let mut pilot = connected(0);
        let id = subscribed(&mut pilot, "t", 10);
        let mut answer = publish(&mut pilot, 1, "x").expect("room");
        pilot.lost(now(2), fault.clone());
        assert_eq!(pilot.order(now(2)) == Order::Stop, is_end, "{fault:?}");
        assert_eq!(answer.try_recv().is_ok(), is_end, "{fault:?}");
        if is_end {
            assert!(poll(&mut pilot, id).0.is_ready(), "that it was accepted");
            let error = Error::from(fault);
            assert_eq!(poll(&mut pilot, id).0, Poll::Ready(Some(Err(error.clone()))));
            assert_eq!(poll(&mut pilot, id).0, Poll::Ready(None));
            assert_eq!(publish(&mut pilot, 3, "y").expect_err("it has ended"), error);
        }
    }
}

#[test]
fn the_last_word_on_tcp_counts_as_a_close() {
    let mut pilot = connected(0);
    let error = schema::Error { code: 4501, name: "badToken".into(), ..Default::default() };
    pilot.heard(now(1), event(0, Body::Error(error))).expect("understood");
    pilot.lost(now(1), Fault::Ended);
    let State::Closed { error: Some(error) } = pilot.state() else { panic!("it goes on") };
    assert_eq!((error.code(), error.name()), (4501, "badToken"));
}

#[test]
fn what_has_no_answer_is_sent_again_in_order_and_for_so_long() {
    let mut pilot = connected(0);
    let answers = ["1", "2"].map(|text| publish(&mut pilot, 10, text).expect("room"));
    let first = sent(&mut pilot);
    pilot.lost(now(20), Fault::Ended);
    let _kept = publish(&mut pilot, 30, "3").expect("room");
    assert_eq!(publish(&mut pilot, 30, "4").expect_err("no room").name(), "queueFull");
    connect(&mut pilot, 40);
    let again = sent(&mut pilot);
    assert_eq!(texts(&again), ["1", "2", "3"]);
    assert_eq!(again[..2], first, "with the same ids and keys");
    pilot.lost(now(50), Fault::Ended);
    connect(&mut pilot, 10 + 240_001);
    assert_eq!(texts(&sent(&mut pilot)), ["3"], "the server has forgotten the keys of the others");
    for mut answer in answers {
        let error = answer.try_recv().expect("settled").expect_err("unknown");
        assert_eq!(error.name(), "unknown");
    }
}

#[test]
fn an_answer_that_does_not_come_is_given_up() {
    let mut pilot = connected(0);
    let mut answer = publish(&mut pilot, 0, "x").expect("room");
    let ping = |pilot: &mut Pilot, ms| {
        pilot.heard(now(ms), event(0, Body::Ping(schema::ServerPing {}))).expect("understood");
    };
    ping(&mut pilot, 29_999);
    pilot.tick(now(29_999)).expect("the server is there");
    assert!(answer.try_recv().is_err());
    assert_eq!(pilot.deadline(), Duration::from_secs(30));
    pilot.tick(now(30_000)).expect("the server is there");
    assert_eq!(answer.try_recv().expect("settled").expect_err("late").name(), "unknown");
}

#[test]
fn a_server_that_is_silent_for_longer_than_it_promised_is_given_up() {
    let mut pilot = connected(0);
    assert!(pilot.tick(now(34_999)).is_ok());
    assert!(matches!(pilot.tick(now(35_000)), Err(Fault::Silent(_))));
    // The hello itself has less time.
    let mut pilot = Pilot::new(settings(), now(0));
    pilot.opened(now(0), None);
    assert!(matches!(pilot.tick(now(10_000)), Err(Fault::Silent(_))));
    // A laptop that slept: only the wall clock went on.
    let mut pilot = connected(0);
    let woken = Now { uptime: Duration::from_secs(1), wall_ms: 3_600_000 };
    assert!(matches!(pilot.tick(woken), Err(Fault::Silent(_))));
}

#[test]
fn nothing_is_read_while_the_application_leaves_what_is_there() {
    let mut pilot = connected(0);
    let id = subscribed(&mut pilot, "t", 10);
    let hear = |pilot: &mut Pilot, offsets: std::ops::RangeInclusive<u64>| {
        for offset in offsets {
            pilot.heard(now(0), message("t", offset)).expect("understood");
        }
    };
    hear(&mut pilot, 1..=8);
    assert!(pilot.may_read(), "with the first event there are nine");
    hear(&mut pilot, 9..=9);
    assert!(!pilot.may_read());
    // The server is not silent: nobody listens.
    assert!(pilot.tick(now(100_000)).is_ok());
    // Who waits for an answer may be behind with reading.
    let _answer = publish(&mut pilot, 100_000, "x").expect("room");
    assert!(pilot.may_read());
    hear(&mut pilot, 10..=19);
    assert!(!pilot.may_read(), "but not for ever");
    pilot.tick(now(130_000)).expect("it is still so");
    for _ in 0..10 {
        assert_eq!(poll(&mut pilot, id).1, Room::Same);
    }
    assert_eq!(poll(&mut pilot, id).1, Room::More);
    assert!(pilot.may_read());
}

#[test]
fn a_subscription_that_is_refused_for_now_is_tried_again() {
    let mut pilot = connected(0);
    subscribe(&mut pilot, "t", 10);
    let commands = sent(&mut pilot);
    let retry = schema::Retry::Later.into();
    let busy = schema::Error { code: 117, retry, ..Default::default() };
    pilot.heard(now(1), event(commands[0].0, Body::Error(busy))).expect("understood");
    let at = pilot.deadline();
    assert!(at <= Duration::from_millis(501), "{at:?}");
    let at = u64::try_from(at.as_millis()).expect("small") + 1;
    pilot.tick(now(at)).expect("the server is there");
    assert!(matches!(sent(&mut pilot).as_slice(), [(_, Action::Subscribe(_))]));
}

#[test]
fn another_token_is_shown_when_a_fifth_of_the_life_is_left() {
    let renewed = Settings { tokens: Tokens::Renewed, ..settings() };
    let mut pilot = Pilot::new(renewed, now(0));
    let hello = schema::Connected { expires_ms: 60_000, ..Default::default() };
    greet(&mut pilot, 0, hello);
    assert_eq!(pilot.refresh_at(), Some(Duration::from_secs(48)));
    pilot.refresh(now(48_000), Some("another"));
    let commands = sent(&mut pilot);
    let [(id, Action::Refresh(refresh))] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(refresh.token, "another");
    let refreshed = schema::Refreshed { expires_ms: 600_000 };
    pilot.heard(now(48_000), event(*id, Body::Refreshed(refreshed))).expect("understood");
    assert_eq!(pilot.refresh_at(), Some(Duration::from_secs(48 + 480)));
    // Without one, it is asked for again soon.
    pilot.refresh(now(528_000), None);
    let again = pilot.refresh_at().expect("another try");
    assert!(again <= Duration::from_secs(529), "{again:?}");
    // One that has expired is followed by another.
    pilot.lost(now(700_000), Fault::Closed { code: 4401, text: "tokenExpired: x".into() });
    assert!(matches!(pilot.order(now(700_000)), Order::Wait(_)));
}

#[test]
fn who_leaves_is_subscribed_no_more() {
    let mut pilot = connected(0);
    let id = subscribed(&mut pilot, "t", 10);
    let detail = pilot.subscribe(
        now(0),
        (Target::parse("t").expect("a target"), Asked::default()),
        (10, oneshot::channel().0),
    );
    assert_eq!(detail.expect_err("it has one").name(), "alreadySubscribed");
    pilot.leave(now(1), id);
    assert!(matches!(sent(&mut pilot).as_slice(), [(_, Action::Unsubscribe(_))]));
    pilot.heard(now(1), message("t", 1)).expect("nobody minds");
    subscribed(&mut pilot, "t", 10);
}

#[test]
fn a_call_that_changes_nothing_ends_with_its_connection() {
    let mut pilot = connected(0);
    let (reply, mut answer) = oneshot::channel();
    pilot.call(now(0), Action::Ping(schema::Ping {}), reply).expect("room");
    pilot.lost(now(1), Fault::Ended);
    assert_eq!(answer.try_recv().expect("settled").expect_err("gone").name(), "disconnected");
}
