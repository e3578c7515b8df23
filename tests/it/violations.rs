//! What RFC 6455 and the limits forbid a client: each closes its connection with the right code, and
//! nobody else notices.
//! # Not here: what is allowed (`frames`), the handshake (`edge`).

use crate::harness::{Broker, Bystander, with_broker};
use crate::socket::{
    BINARY, CLOSE, CONTINUATION, FIN, LENGTH_16, LENGTH_64, MASKED, PING, PONG, Socket, TEXT, frame,
};
use fanfare::reason::Reason;

const RSV: [u8; 3] = [0x40, 0x20, 0x10];
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A violation: what it is, its bytes, and what it is closed with.
type Case = (String, Vec<u8>, Reason);

/// Sends each violation behind a good command and in front of another: the first is answered, then
/// comes the close, and the other is not heard.
async fn check(broker: &Broker, cases: Vec<Case>) {
    let mut bystander = Bystander::join(broker).await;
    let ping = frame(FIN | TEXT, br#"{"id":1,"ping":{}}"#);
    let publish = frame(FIN | TEXT, br#"{"id":2,"publish":{"topic":"late","text":"x"}}"#);
    for (index, (what, bytes, reason)) in cases.into_iter().enumerate() {
        println!("{what}");
        let mut socket = Socket::open(broker, Some("fanfare.v1.json")).await;
        socket.pipe.send(&[ping.clone(), bytes, publish.clone()].concat()).await;
        assert_eq!(socket.frame().await.text(), r#"{"id":1,"pong":{}}"#);
        let text = socket.must_close(reason.code()).await;
        let start = format!("{}: {}", reason.name(), reason.sentence());
        assert!(text.starts_with(&start), "{text}");
        if index % 8 == 0 {
            bystander.is_fine().await;
        }
    }
    bystander.is_fine().await;
    let own = bystander.published();
    assert_eq!(broker.count("fanfare_published_total").await, own, "something late was heard");
}

fn broken(what: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Case {
    (what.into(), bytes.into(), Reason::ProtocolError)
}

#[test]
fn a_broken_head_closes_with_1002() {
    with_broker("", async |broker| {
        let mut cases = vec![
            broken("not masked", [FIN | TEXT, 2, b'{', b'}']),
            broken("a ping not masked", [FIN | PING, 0]),
            broken("a close not masked", [FIN | CLOSE, 0]),
            broken("a length of 5 in 16 bits", [FIN | TEXT, MASKED | LENGTH_16, 0, 5]),
            broken("a length of 125 in 16 bits", [FIN | TEXT, MASKED | LENGTH_16, 0, 125]),
            broken(
                "a length of 0 in 64 bits",
                [&[FIN | TEXT, MASKED | LENGTH_64][..], &[0; 8]].concat(),
            ),
            broken(
                "a length of 65535 in 64 bits",
                [&[FIN | TEXT, MASKED | LENGTH_64][..], &65_535_u64.to_be_bytes()].concat(),
            ),
            broken(
                "a length with its top bit set",
                [&[FIN | TEXT, MASKED | LENGTH_64][..], &(1_u64 << 63).to_be_bytes()].concat(),
            ),
        ];
        for bit in RSV {
            cases.push(broken(format!("reserved bit {bit:#x}"), frame(FIN | bit | TEXT, b"{}")));
            cases.push(broken(
                format!("reserved bit {bit:#x} of a ping"),
                frame(FIN | bit | PING, b""),
            ));
        }
        for opcode in (0x3..=0x7).chain(0xB..=0xF) {
            cases.push(broken(format!("opcode {opcode:#x}"), frame(FIN | opcode, b"")));
        }
        check(broker, cases).await;
    });
}

#[test]
fn a_broken_control_frame_closes_with_1002() {
    with_broker("", async |broker| {
        let mut cases = Vec::new();
        for opcode in [PING, PONG, CLOSE] {
            cases.push(broken(format!("{opcode:#x} without an end"), frame(opcode, b"")));
            cases.push(broken(format!("{opcode:#x} of 126"), frame(FIN | opcode, &[3; 126])));
            let huge = [FIN | opcode, MASKED | LENGTH_64, 0, 0, 0, 0, 0, 1, 0, 0];
            cases.push(broken(format!("{opcode:#x} of 65536"), huge));
        }
        cases.push(broken("a close of one byte", frame(FIN | CLOSE, &[3])));
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            let code: u16 = code;
            let bytes = frame(FIN | CLOSE, &code.to_be_bytes());
            cases.push(broken(format!("close code {code}"), bytes));
        }
        check(broker, cases).await;
    });
}

#[test]
fn fragments_out_of_order_close_with_1002() {
    with_broker("", async |broker| {
        let open = frame(TEXT, br#"{"id":9,"#);
        let mut cases = vec![
            broken("nothing to continue", frame(FIN | CONTINUATION, b"{}")),
            broken("nothing to continue, not final", frame(CONTINUATION, b"{}")),
        ];
        for first in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
            let bytes = [open.clone(), frame(first, b"{}")].concat();
            cases.push(broken(format!("{first:#x} inside a message"), bytes));
        }
        cases.push(broken("a pong inside a message does not end it", {
            [open, frame(FIN | PONG, b""), frame(FIN | TEXT, b"{}")].concat()
        }));
        check(broker, cases).await;
    });
}

#[test]
fn a_text_that_is_not_utf_8_closes_with_1007() {
    with_broker("", async |broker| {
        let bad = |what: &str, bytes: Vec<u8>| (what.to_owned(), bytes, Reason::InvalidUtf8);
        let texts: [&[u8]; 7] = [
            b"\xff",
            b"\xc0\x80",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"{\"a\":\"\xe2\x82",
            b"\xe2\x28\xa1",
            b"plain and then \x80",
        ];
        let mut cases: Vec<Case> = texts
            .iter()
            .map(|text| bad(&format!("{text:02x?}"), frame(FIN | TEXT, text)))
            .collect();
        cases.push(bad("a character that the last fragment does not finish", {
            let last = frame(FIN | CONTINUATION, b"\x82");
            [frame(TEXT, b"\"\xe2"), last].concat()
        }));
        cases.push(bad("an empty last fragment", {
            let last = frame(FIN | CONTINUATION, b"");
            [frame(TEXT, b"\"\xf0\x9f\x98"), last].concat()
        }));
        cases.push(bad("the reason of a close", frame(FIN | CLOSE, b"\x03\xe8\xff")));
        cases.push(bad("a cut reason of a close", frame(FIN | CLOSE, b"\x03\xe8\xe2\x82")));
        check(broker, cases).await;
    });
}

#[test]
fn a_message_over_a_limit_closes_with_1009_before_it_has_arrived() {
    with_broker("", async |broker| {
        let big = |what: &str, bytes: Vec<u8>| (what.to_owned(), bytes, Reason::MessageTooBig);
        let head = |first: u8, length: u64| {
            [&[first, MASKED | LENGTH_64][..], &length.to_be_bytes(), &MASK].concat()
        };
        let half = frame(TEXT, &vec![b' '; 40_000]);
        let cases = vec![
            big("65537 bytes", head(FIN | TEXT, 65_537)),
            big("a gibibyte", head(FIN | BINARY, 1 << 30)),
            big("nearly everything", head(FIN | TEXT, (1 << 63) - 1)),
            big("a first fragment of a gibibyte", head(TEXT, 1 << 30)),
            big(
                "two fragments together",
                [half.clone(), frame(CONTINUATION, &vec![b' '; 25_537])].concat(),
            ),
            big("two fragments, the last one final", {
                [half, frame(FIN | CONTINUATION, &vec![b' '; 40_000])].concat()
            }),
            big("65 fragments", {
                [frame(TEXT, b""), frame(CONTINUATION, b"").repeat(64)].concat()
            }),
        ];
        check(broker, cases).await;
    });
}

#[test]
fn a_message_that_ends_in_the_middle_is_forgotten() {
    with_broker("", async |broker| {
        for cut in [1, 2, 5, 10, 14, 15, 1000] {
            let mut socket = Socket::open(broker, None).await;
            let bytes = frame(FIN | TEXT, &vec![b' '; 65_536]);
            socket.pipe.send(&bytes[..cut]).await;
            socket.pipe.finish();
            socket.pipe.end().await;
        }
        broker.until("fanfare_connections{wire=\"websocket_json\"}", |open| open == 0).await;
    });
}
