//! Who connections are, with time that passes when it is told to.
//! # Not here: what an identity may do (`auth`), tokens over real sockets (`tests/it`).

use super::{Bench, WIDE, Wired};
use crate::auth::{
    Algorithm, ApiToken, Authority, Grants, Guard, Hash, Key, Revocation, Rules, Signer, sign,
};
use crate::clock::Now;
use crate::shard::{ConnectionId, ShardOptions};
use crate::topics::name::TopicFilter;
use crate::topics::terms::Overflow;
use std::rc::Rc;
use std::sync::Arc;

const START_MS: u64 = 1_800_000_000_000;

fn grants(filter: &str) -> Grants {
    Grants { subscribe: TopicFilter::parse(filter).into_iter().collect(), ..Grants::default() }
}

fn authority(filter: &str) -> Authority {
    let token = ApiToken { name: "svc".into(), hash: Hash::of("s"), grants: grants(filter) };
    Authority::of(Rules { tokens: vec![token], revocations_max: 4, ..Rules::default() })
}

fn guarded(options: ShardOptions) -> (Bench, Arc<Guard>) {
    let mut bench = Bench::new(options);
    let guard = Arc::new(Guard::new(authority("a.>")));
    bench.shard.follow(Arc::clone(&guard));
    bench.shard.set_now(Now::at_ms(START_MS));
    (bench, guard)
}

/// A connection that has shown the token.
fn known(bench: &mut Bench, guard: &Guard, room: usize) -> (ConnectionId, Rc<Wired>) {
    let (id, wired) = bench.open(room);
    let identity = guard.authenticate("s", bench.shard.now()).expect("known");
    bench.shard.identify(id, &identity).expect("identified");
    (id, wired)
}

/// A shard where a key signs, and a token of it for so many seconds.
fn signed() -> (Bench, Arc<Guard>, Signer) {
    let secret = [b'k'; 32];
    let key = Key::of_secret(None, Algorithm::Hs256, &secret).expect("a key");
    let signer = Signer::of_file(Algorithm::Hs256, &secret).expect("a signer");
    let (mut bench, _) = guarded(ShardOptions::default());
    let rules = Rules { audience: "x".into(), leeway_s: 5, keys: vec![key], ..Rules::default() };
    let guard = Arc::new(Guard::new(Authority::of(rules)));
    bench.shard.follow(Arc::clone(&guard));
    (bench, guard, signer)
}

fn show(bench: &mut Bench, guard: &Guard, signer: &Signer, (id, seconds): (ConnectionId, u64)) {
    let exp = bench.shard.now().wall_ms / 1000 + seconds;
    let claims = serde_json::json!({"sub": "a", "aud": "x", "exp": exp});
    let token = sign(signer, None, &claims).expect("signed");
    let identity = guard.authenticate(&token, bench.shard.now()).expect("valid");
    bench.shard.identify(id, &identity).expect("identified");
}

#[test]
fn a_connection_ends_within_a_second_after_its_token_and_not_before() {
    let (mut bench, guard, signer) = signed();
    let (id, wired) = bench.open(WIDE);
    show(&mut bench, &guard, &signer, (id, 20));
    // The leeway is a part of its time.
    bench.pass(25);
    assert!(bench.shard.is_open(id));
    bench.pass(1);
    assert!(!bench.shard.is_open(id));
    assert_eq!(wired.frames().last().map(String::as_str), Some("close 4401"));
}

#[test]
fn a_token_that_is_refreshed_in_time_ends_when_the_new_one_does() {
    let (mut bench, guard, signer) = signed();
    let (id, wired) = bench.open(WIDE);
    show(&mut bench, &guard, &signer, (id, 1));
    bench.pass(5);
    bench.shard.set_now(Now::at_ms(START_MS + 5_000));
    show(&mut bench, &guard, &signer, (id, 15));
    bench.pass(20);
    assert!(bench.shard.is_open(id));
    bench.pass(1);
    assert_eq!(wired.frames().last().map(String::as_str), Some("close 4401"));
}

#[test]
fn who_shows_no_token_is_closed_when_its_time_is_over() {
    let (mut bench, guard) = guarded(ShardOptions::default());
    let (stranger, wired) = bench.open(WIDE);
    let (friend, _) = known(&mut bench, &guard, WIDE);
    bench.pass(9);
    assert!(bench.shard.is_open(stranger));
    bench.pass(1);
    assert_eq!(wired.frames(), ["close 4502"]);
    bench.pass(10);
    assert!(bench.shard.is_open(friend));
}

#[test]
fn a_slot_that_is_used_again_does_not_bring_the_identity_back() {
    let (mut bench, guard) = guarded(ShardOptions::default());
    let (first, _) = known(&mut bench, &guard, WIDE);
    bench.shard.remove(first);
    let (second, _) = bench.open(WIDE);
    assert_eq!(second.slot, first.slot);
    assert!(bench.shard.identity(second).is_none());
}

#[test]
fn a_revocation_while_a_resume_is_under_way_ends_it() {
    let (mut bench, guard) =
        guarded(ShardOptions { outbound_bytes_max: 300, ..ShardOptions::default() });
    // It takes little, so most of what it missed is still to be read for it from the history.
    let (id, wired) = known(&mut bench, &guard, 400);
    bench.join(id, "a.b", Overflow::CatchUp);
    bench.publish("a.b", 200);
    bench.run();
    let before = wired.story().len();
    assert!((1..100).contains(&before), "{before}");
    guard.revoke(Revocation::Subject("svc".into()), u64::MAX, bench.shard.now()).expect("room");
    bench.pass(1);
    assert!(!bench.shard.is_open(id));
    wired.room.set(WIDE);
    bench.shard.flush(id);
    bench.run();
    let story = wired.story();
    assert_eq!(story.last().map(String::as_str), Some("close 4503"));
    assert!(story.len() < 100, "{} messages after the revocation", story.len());
}

#[test]
fn what_another_authority_does_not_allow_ends_and_the_rest_goes_on() {
    let (mut bench, guard) = guarded(ShardOptions::default());
    let (id, wired) = known(&mut bench, &guard, WIDE);
    for target in ["a.b", "a.*", "a.c.*"] {
        bench.join(id, target, Overflow::Gap);
    }
    guard.replace(&authority("a.c.>"));
    // Nothing is delivered between the change and the look that follows it.
    bench.shard.review();
    bench.publish("a.b", 1);
    bench.publish("a.c.d", 1);
    bench.run();
    let mut frames = wired.frames();
    frames.retain(|frame| !frame.contains("position"));
    frames.sort();
    assert_eq!(frames.len(), 3, "{frames:?}");
    assert!(frames[0].contains("a.c.d"), "{frames:?}");
    assert_eq!(frames[1], r#"{"unsubscribed":{"topic":"a.*","reason":"notAllowed"}}"#);
    assert_eq!(frames[2], r#"{"unsubscribed":{"topic":"a.b","reason":"notAllowed"}}"#);
}

#[test]
fn an_open_broker_that_is_guarded_later_gives_nobody_the_benefit_of_the_doubt() {
    let mut bench = Bench::new(ShardOptions::default());
    let guard = Arc::new(Guard::new(Authority::open()));
    bench.shard.follow(Arc::clone(&guard));
    let (id, wired) = bench.open(WIDE);
    bench.join(id, "a.b", Overflow::Gap);
    guard.replace(&authority("a.>"));
    bench.pass(1);
    assert_eq!(wired.frames(), ["close 4503"]);
}
