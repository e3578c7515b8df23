//! What only a scripted server does to a client.
//! # Not here: the list (`scenarios`).

use crate::ear::Ear;
use crate::rig::{Way, within};
use crate::script::{Script, hello, message, position, topic};
use fanfare::client::{Client, GapReason, State};
use fanfare::clock::Clock;
use fanfare::dialect::{self, Action};
use std::time::Duration;

/// Waits for a state.
pub(crate) async fn until(client: &Client, is_it: impl Fn(&State) -> bool) -> State {
    let mut states = client.states();
    loop {
        let state = within("a state", states.next()).await.expect("another state");
        if is_it(&state) {
            return state;
        }
    }
}

fn is_connected(state: &State) -> bool {
    matches!(state, State::Connected { .. })
}

/// A gap that is told, and a hole of which nothing is said.
pub(crate) async fn gap(way: Way) {
    let script = Script::start(way).await;
    let client = way.client(script.address).start().expect("a client");
    let serve = async {
        let mut peer = script.greet(hello()).await;
        peer.subscribe(0, None).await;
        peer.say(0, &message(1)).await;
        let (from, to, reason) = (2, 3, dialect::GapReason::Slow);
        peer.say(0, &dialect::Event::Gap(dialect::Gap { topic: topic("t"), from, to, reason }))
            .await;
        let at = dialect::TopicPosition { topic: topic("t"), position: position(3) };
        peer.say(0, &dialect::Event::Position(at)).await;
        peer.say(0, &message(4)).await;
        peer.say(0, &message(7)).await;
        peer
    };
    let (subscription, peer) = tokio::join!(client.subscribe("t"), serve);
    let mut ear = Ear::new(subscription.expect("accepted"));
    assert_eq!(ear.texts(1).await, ["1"]);
    let told = ear.gap().await;
    assert_eq!((told.from, told.to, told.count, told.reason), (2, 3, 2, GapReason::Slow));
    assert_eq!(ear.texts(1).await, ["4"], "{way:?}");
    let lost = ear.gap().await;
    assert_eq!((lost.from, lost.to, lost.count, lost.reason), (5, 6, 2, GapReason::Lost));
    assert_eq!(ear.subscription.positions(), [(topic("t"), position(6))], "7 is not taken");
    assert_eq!(ear.texts(1).await, ["7"]);
    peer.close(1001).await;
    let mut peer = script.greet(hello()).await;
    let again = peer.subscribe(7, Some(Ok(()))).await;
    assert_eq!(again.since, Some(position(7)), "a resume begins behind them");
}

/// A server that says when to come back.
pub(crate) async fn afterwards(way: Way) {
    let script = Script::start(way).await;
    let client = way.client(script.address).start().expect("a client");
    let mut peer = script.greet(hello()).await;
    until(&client, is_connected).await;
    peer.say(0, &dialect::Event::Reconnect { after_ms: 300 }).await;
    let clock = Clock::start();
    peer.close(1001).await;
    script.greet(hello()).await;
    assert!(clock.now().uptime >= Duration::from_millis(300), "{way:?}");
}

/// A server that is gone at each step of the handshake.
pub(crate) async fn steps(way: Way) {
    // Nobody listens.
    let address = Script::start(way).await.address;
    let patience = Duration::from_millis(200);
    let client = way.client(address).patience(patience).start().expect("a client");
    let state = until(&client, |state| matches!(state, State::Waiting { .. })).await;
    assert!(format!("{state:?}").contains("connection refused"), "{state:?}");
    let script = Script::start_at(way, &address.to_string()).await;
    // It ends after the connect.
    drop(script.accept().await);
    if way != Way::Tcp {
        // In the middle of the upgrade.
        let mut peer = script.accept().await;
        let answer = peer.upgrade("fanfare.v1.json").await;
        peer.write(&answer.as_bytes()[..40]).await;
        drop(peer);
        // It never answers.
        script.accept().await.left().await;
    }
    // After the upgrade.
    drop(script.begin().await);
    // In the middle of the hello.
    let mut peer = script.begin().await;
    peer.hear().await;
    peer.write(&[if way == Way::Tcp { 0 } else { 0x81 }]).await;
    drop(peer);
    // It never says hello.
    let mut peer = script.begin().await;
    peer.hear().await;
    peer.left().await;
    let _well = script.greet(hello()).await;
    until(&client, is_connected).await;
}

/// Events that are none.
pub(crate) async fn malformed(way: Way) {
    // What is no event at all, one without what it needs, and what nobody knows.
    let (bad, poor, unknown): (&[u8], &[u8], &[u8]) = match way {
        Way::Json => {
            (b"{\"message\":", b"{\"message\":{\"topic\":\"t\"}}", b"{\"later\":{\"x\":1}}")
        }
        Way::Proto | Way::Tcp => {
            (&[0x12, 0x7F, 1], &[0x12, 3, 0x0A, 1, b't'], &[0xF2, 0x3F, 1, b'x'])
        }
    };
    let script = Script::start(way).await;
    let client = way.client(script.address).start().expect("a client");
    let serve = async {
        let mut peer = script.greet(hello()).await;
        peer.subscribe(0, None).await;
        peer
    };
    let (subscription, mut peer) = tokio::join!(client.subscribe("t"), serve);
    let mut ear = Ear::new(subscription.expect("accepted"));
    for (offset, body) in [(1, bad), (2, poor)] {
        peer.say_body(unknown).await;
        peer.say(0, &message(offset)).await;
        assert_eq!(ear.texts(1).await, [offset.to_string()], "{way:?}");
        peer.say_body(body).await;
        let waits = |state: &State| matches!(state, State::Waiting { .. });
        let (state, ()) = tokio::join!(until(&client, waits), peer.left());
        let State::Waiting { reason, .. } = state else { panic!("{state:?}") };
        assert_eq!(reason.name(), "badEvent", "{way:?} {reason}");
        peer = script.greet(hello()).await;
        let again = peer.subscribe(offset, Some(Ok(()))).await;
        assert_eq!(again.since, Some(position(offset)), "{way:?}");
    }
}

/// A server that says nothing more.
pub(crate) async fn silence(way: Way) {
    let script = Script::start(way).await;
    let silence = Duration::from_millis(100);
    let client = way.client(script.address).silence(silence).start().expect("a client");
    let serve = async {
        let brief = dialect::Connected { ping_ms: 50, ..hello() };
        let mut peer = script.greet(brief).await;
        peer.subscribe(3, None).await;
        peer.left().await;
    };
    let waits = |state: &State| matches!(state, State::Waiting { .. });
    let waiting = until(&client, waits);
    let (subscription, (), state) = tokio::join!(client.subscribe("t"), serve, waiting);
    let State::Waiting { reason, .. } = state else { panic!("{state:?}") };
    assert_eq!(reason.name(), "silent", "{way:?}");
    let mut peer = script.greet(hello()).await;
    let again = peer.subscribe(3, Some(Ok(()))).await;
    assert_eq!(again.since, Some(position(3)));
    let mut ear = Ear::new(subscription.expect("accepted"));
    assert_eq!(ear.recovery().await.loss, None);
}

/// What a client says first and last.
pub(crate) async fn goodbye(way: Way) {
    let script = Script::start(way).await;
    let client = way.client(script.address).name("ann").start().expect("a client");
    let mut peer = script.begin().await;
    let command = peer.hear().await;
    let Action::Connect(hello) = command.action else { panic!("{command:?}") };
    assert_eq!(hello.name.as_deref(), Some("ann"), "{way:?}");
    tokio::join!(client.close(), peer.left());
    assert_eq!(client.state(), State::Closed { error: None });
}
