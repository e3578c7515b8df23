//! Plans against a model: random frames, chains, wires, and sockets that take a part.
//! # Not here: what becomes of the rest (`shard::tests`).

use super::*;
use crate::clock::Now;
use crate::dialect::{Event, TopicPosition, encode, encode_message};
use crate::shard::cursor::Mode;
use crate::shard::turn::Frame;
use crate::topics::message::{Draft, Epoch, Message, Offset, Payload, Position, TopicHead};
use crate::topics::name::TopicName;
use crate::topics::rule::Rule;
use proptest::prelude::*;
use std::sync::Arc;

/// What a frame is about.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A message with a text of so many bytes.
    Message(usize),
    /// The same, compressed where the wire is.
    Compressed(usize),
    Position,
}

fn kind() -> impl Strategy<Value = Kind> {
    // Around the lengths at which heads, varints and copies change, and the most of a batch.
    let len = || {
        prop_oneof![
            6 => 0usize..300,
            2 => COPIED_BYTES_MAX - 200..COPIED_BYTES_MAX + 100,
            1 => 16_200usize..16_500,
            1 => BATCH_BYTES_MAX - 200..BATCH_BYTES_MAX + 100,
        ]
    };
    prop_oneof![
        6 => len().prop_map(Kind::Message),
        1 => len().prop_map(Kind::Compressed),
        1 => Just(Kind::Position),
    ]
}

fn wire() -> impl Strategy<Value = Wire> {
    prop::sample::select(Wire::ALL.to_vec())
}

/// Frames, and some of them in any order.
fn frames_and_chain() -> impl Strategy<Value = (Vec<Kind>, Vec<usize>)> {
    prop::collection::vec(kind(), 1..60).prop_flat_map(|kinds| {
        let all: Vec<usize> = (0..kinds.len()).collect();
        let in_order = prop::sample::subsequence(all.clone(), 1..=kinds.len());
        let chain = prop_oneof![in_order.clone(), in_order.prop_shuffle(), Just(all)];
        (Just(kinds), chain)
    })
}

/// One thing as its receiver has it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Event(Vec<u8>),
    /// The payload of a compressed message.
    Compressed(Vec<u8>),
}

/// A turn whose frames are laid out for one wire.
struct Laid {
    turn: Turn,
    wire: Wire,
    frames: Vec<FrameIndex>,
    /// What each of them says.
    said: Vec<Said>,
}

fn message(len: usize) -> Message {
    let name = TopicName::parse("a.b").expect("a name");
    let head = TopicHead::new(1, name.clone(), Epoch::from_bits(7), Arc::new(Rule::default()));
    let text: Vec<u8> = (b'a'..=b'z').cycle().take(len).collect();
    Message::new(
        Arc::new(head),
        Offset(len as u64 + 1),
        Draft::new(name, Payload::Text(text.into())),
        Now::at_ms(0),
    )
}

fn position() -> Event {
    let position = Position { epoch: Epoch::from_bits(7), offset: Offset(3) };
    Event::Position(TopicPosition { topic: TopicName::parse("a.b").expect("a name"), position })
}

/// A compressed frame, whose first byte says so.
fn compressed(len: usize, wire: Wire) -> Bytes {
    let (room, start) = frame::batch_head(wire, len);
    let mut bytes = room[start..].to_vec();
    bytes[0] |= COMPRESSED;
    // Line ends and zeros, as what is compressed may have.
    bytes.extend([b'\n', 0, 0xFF].iter().cycle().take(len));
    bytes.into()
}

/// The wire on which an event travels alone and as it is.
fn alone(wire: Wire) -> Wire {
    match wire {
        Wire::TcpProto | Wire::SseTopic | Wire::SseTopics => wire,
        _ if wire.is_json() => Wire::WebSocketJson,
        _ => Wire::WebSocketProto,
    }
}

impl Laid {
    fn out(kinds: &[Kind], wire: Wire) -> Laid {
        let mut laid = Laid { turn: Turn::default(), wire, frames: Vec::new(), said: Vec::new() };
        for kind in kinds {
            laid.add(*kind);
        }
        laid
    }

    fn add(&mut self, kind: Kind) {
        let wire = self.wire;
        let event = |bytes: Bytes| Said::Event(frame::body(&bytes, alone(wire)).to_vec());
        let (frame, bytes, said) = match kind {
            Kind::Compressed(len) if wire.is_deflated() => {
                let message = message(len);
                let bytes = message.frame(wire, |_, wire| compressed(len, wire)).clone();
                let said = Said::Compressed(frame::body(&bytes, wire).to_vec());
                (Frame::Message(Arc::new(message)), bytes, said)
            }
            Kind::Message(len) | Kind::Compressed(len) => {
                let message = message(len);
                // As if compressing never paid.
                let plain = |message: &Message, wire: Wire| encode_message(message, wire.plain());
                let bytes = message.frame(wire, plain).clone();
                let said = event(encode_message(&message, alone(wire)));
                (Frame::Message(Arc::new(message)), bytes, said)
            }
            Kind::Position => {
                let bytes = encode(0, &position(), wire);
                let said = event(encode(0, &position(), alone(wire)));
                (Frame::Position { first: Arc::new(message(1)), bytes: bytes.clone() }, bytes, said)
            }
        };
        let index = self.turn.add(frame);
        self.turn.lay_out(index, wire, &bytes);
        self.frames.push(index);
        self.said.push(said);
    }

    fn chain(&mut self, chain: &[usize]) -> (Pending, Order) {
        let mut pending = Pending::default();
        for index in chain {
            self.turn.link(&mut pending, self.frames[*index], Mode::Gap);
        }
        let mut order = Order::default();
        self.turn.follow(pending, &mut order);
        (pending, order)
    }

    fn plan(&mut self, chain: &[usize]) -> Plan {
        let (pending, order) = self.chain(chain);
        let mut plan = Plan::default();
        plan.make(&self.turn, pending, self.wire, &order);
        plan
    }

    fn said(&self, chain: &[usize]) -> Vec<Said> {
        chain.iter().map(|index| self.said[*index].clone()).collect()
    }
}

/// All bytes of a plan, taken in writes of so many slices.
fn bytes_of(plan: &Plan, turn: &Turn, slices_max: usize) -> Vec<u8> {
    let (mut bytes, mut from) = (Vec::new(), 0);
    loop {
        let mut room = vec![IoSlice::new(&[]); slices_max];
        let (count, len) = plan.slices(from, turn, &mut room);
        let written: Vec<u8> = room[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(written.len(), len);
        bytes.extend(written);
        from += count;
        if count == 0 {
            assert_eq!(bytes.len(), plan.len);
            return bytes;
        }
    }
}

/// What a receiver makes of the bytes: message by message what each joins. By the letter of
/// RFC 6455 and docs/protocol.md, with nothing of ours.
fn read(mut bytes: &[u8], wire: Wire) -> Vec<Vec<Said>> {
    let mut messages = Vec::new();
    while wire.is_sse() && !bytes.is_empty() {
        let end = bytes.windows(2).position(|two| two == b"\n\n").expect("the end of an event") + 2;
        let event = bytes[..end].strip_prefix(b"data: ").expect("data");
        messages.push(vec![Said::Event(event.to_vec())]);
        bytes = &bytes[end..];
    }
    while !bytes.is_empty() {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let (head, len) = match (wire, bytes[1]) {
            (Wire::TcpProto, _) => (4, number(&bytes[..4])),
            (_, 126) => (4, number(&bytes[2..4])),
            (_, 127) => (10, number(&bytes[2..10])),
            (_, short) => (2, usize::from(short)),
        };
        let (first, payload) = (bytes[0], &bytes[head..head + len]);
        bytes = &bytes[head + len..];
        messages.push(match first {
            0xC1 | 0xC2 if wire.is_deflated() => vec![Said::Compressed(payload.to_vec())],
            _ if wire.is_batched() => split(payload, wire).into_iter().map(Said::Event).collect(),
            _ => vec![Said::Event(payload.to_vec())],
        });
        let opcode = if wire.is_json() { 1 } else { 2 };
        assert!(wire == Wire::TcpProto || first & 0x8F == 0x80 | opcode, "{first:#x}");
    }
    messages
}

fn split(mut payload: &[u8], wire: Wire) -> Vec<Vec<u8>> {
    assert!(!payload.is_empty(), "an empty batch");
    let mut events = Vec::new();
    while !payload.is_empty() {
        let len = if wire.is_json() {
            payload.iter().position(|byte| *byte == b'\n').expect("the end of a line")
        } else {
            prost::decode_length_delimiter(&mut payload).expect("a length")
        };
        events.push(payload[..len].to_vec());
        payload = &payload[len + usize::from(wire.is_json())..];
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_a_plan_writes_is_what_its_frames_say(
        (kinds, chain) in frames_and_chain(),
        wire in wire(),
        slices_max in 1usize..=64,
    ) {
        let mut laid = Laid::out(&kinds, wire);
        let plan = laid.plan(&chain);
        let messages = read(&bytes_of(&plan, &laid.turn, slices_max), wire);
        prop_assert_eq!(messages.concat(), laid.said(&chain));
        let is_message = |index: &&usize| !matches!(kinds[**index], Kind::Position);
        prop_assert_eq!(plan.messages, chain.iter().filter(is_message).count() as u64);
        let alone = messages.iter().all(|message| message.len() == 1);
        prop_assert!(alone || wire.is_batched());
    }

    #[test]
    fn a_batch_is_as_full_as_it_may_be_and_no_fuller(
        (kinds, chain) in frames_and_chain(),
        is_json in any::<bool>(),
    ) {
        let wire = if is_json { Wire::WebSocketJsonBatch } else { Wire::WebSocketProtoBatch };
        let mut laid = Laid::out(&kinds, wire);
        let plan = laid.plan(&chain);
        let messages = read(&bytes_of(&plan, &laid.turn, 64), wire);
        // Its line end, or a varint of its length.
        let len = |said: &Said| match said {
            Said::Event(event) if is_json => event.len() + 1,
            Said::Event(event) => event.len() + prost::length_delimiter_len(event.len()),
            Said::Compressed(_) => unreachable!("nothing is"),
        };
        let lens: Vec<Vec<usize>> =
            messages.iter().map(|message| message.iter().map(len).collect()).collect();
        for batch in &lens {
            prop_assert!(batch.len() == 1 || batch.iter().sum::<usize>() <= BATCH_BYTES_MAX);
        }
        for pair in lens.windows(2) {
            prop_assert!(pair[0].iter().sum::<usize>() + pair[1][0] > BATCH_BYTES_MAX);
        }
    }

    #[test]
    fn what_a_socket_took_in_part_is_finished_and_the_rest_follows_frame_by_frame(
        (kinds, chain) in frames_and_chain(),
        wire in wire(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut laid = Laid::out(&kinds, wire);
        let (_, order) = laid.chain(&chain);
        let plan = laid.plan(&chain);
        let all = bytes_of(&plan, &laid.turn, 64);
        let mut taken = cut.index(all.len() + 1);
        let mut got = all[..taken].to_vec();
        let mut frames = order.frames();
        while taken > 0 {
            let joint = laid.turn.block(wire).next_message(frames.clone());
            let begun = frames.clone().take(joint.frames);
            let message = joint.message(begun, &laid.turn, wire);
            prop_assert_eq!(message.len(), joint.message_len(wire));
            frames.by_ref().take(joint.frames).for_each(drop);
            if taken < message.len() {
                got.extend(&message[taken..]);
                break;
            }
            taken -= message.len();
        }
        for frame in frames {
            got.extend(laid.turn.bytes(frame, wire).expect("it was laid out"));
        }
        prop_assert_eq!(read(&got, wire).concat(), laid.said(&chain));
    }
}

#[test]
fn a_plan_is_made_anew_for_another_chain_and_for_another_wire() {
    let wires = [Wire::WebSocketJson, Wire::WebSocketJsonBatch, Wire::TcpProto];
    let mut turn = Turn::default();
    let mut chains = [Pending::default(); 2];
    for len in 0..6 {
        let message = Arc::new(message(len));
        let index = turn.add(Frame::Message(Arc::clone(&message)));
        for wire in wires {
            turn.lay_out(index, wire, message.frame(wire, encode_message));
        }
        turn.link(&mut chains[0], index, Mode::Gap);
        if len != 3 {
            turn.link(&mut chains[1], index, Mode::Gap);
        }
    }
    let mut plan = Plan::default();
    let mut order = Order::default();
    for wire in wires.into_iter().chain(wires) {
        for (chain, frames) in chains.into_iter().zip([6, 5]) {
            turn.follow(chain, &mut order);
            for _ in 0..2 {
                plan.make(&turn, chain, wire, &order);
                let messages = read(&bytes_of(&plan, &turn, 64), wire);
                assert_eq!(messages.concat().len(), frames, "{wire:?}");
                assert_eq!(messages.len(), if wire.is_batched() { 1 } else { frames });
            }
        }
    }
}

/// How many slices a chain is written in.
fn slices(kinds: &[Kind], chain: &[usize], wire: Wire) -> usize {
    let mut laid = Laid::out(kinds, wire);
    let plan = laid.plan(chain);
    let mut room = [IoSlice::new(&[]); 64];
    plan.slices(0, &laid.turn, &mut room).0
}

#[test]
fn neighbours_are_one_slice_and_many_short_pieces_are_gathered_into_one() {
    let short = [Kind::Message(10); 9];
    let large = [Kind::Message(30_000); 9];
    // Frames, chain, slices on a wire without batches, slices with them: a head is one more piece.
    let cases: [(&[Kind], &[usize], usize, usize); 6] = [
        (&short, &[0, 1, 2, 3, 4, 5, 6, 7, 8], 1, 2),
        (&short, &[0, 1, 7, 8], 2, 1),
        (&short, &[0, 2, 4], 1, 1),
        (&large, &[0, 1], 2, 1),
        (&large, &[0, 1, 2], 3, 5),
        (&large, &[4], 1, 2),
    ];
    for (kinds, chain, alone, batched) in cases {
        assert_eq!(slices(kinds, chain, Wire::WebSocketProto), alone, "{chain:?}");
        assert_eq!(slices(kinds, chain, Wire::WebSocketProtoBatch), batched, "{chain:?}");
    }
}

#[test]
fn a_large_frame_is_written_from_where_it_is() {
    for wire in Wire::ALL {
        let mut laid = Laid::out(&[Kind::Message(10), Kind::Message(50_000)], wire);
        let plan = laid.plan(&[1]);
        let frame = laid.turn.bytes(laid.frames[1], wire).expect("it was laid out").clone();
        let mut room = [IoSlice::new(&[]); 64];
        let (count, _) = plan.slices(0, &laid.turn, &mut room);
        let written = &room[count - 1];
        let end = |bytes: &[u8]| bytes.as_ptr_range().end;
        assert_eq!(end(written), end(&frame), "{wire:?}");
    }
}

#[test]
fn a_block_that_was_cleared_has_nothing_of_before() {
    let mut laid = Laid::out(&[Kind::Message(10); 5], Wire::WebSocketJsonBatch);
    let mut plan = laid.plan(&[0, 1, 2, 3, 4]);
    laid.turn.clear();
    plan.clear();
    (laid.frames, laid.said) = (Vec::new(), Vec::new());
    laid.add(Kind::Message(20));
    laid.add(Kind::Position);
    let (pending, order) = laid.chain(&[0, 1]);
    plan.make(&laid.turn, pending, laid.wire, &order);
    let messages = read(&bytes_of(&plan, &laid.turn, 64), laid.wire);
    assert_eq!(messages, [laid.said(&[0, 1])]);
}
