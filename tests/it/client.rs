//! A client of the protocol on any of its wires, which tests talk to in JSON.
//! # Invariants: what is said and heard over protobuf goes through the generated types of the
//! schema, not through the broker's own code; a batch is one or more events and nothing beside them.
//! # Not here: what the commands mean.

use crate::harness::Broker;
use crate::pipe::Pipe;
use crate::socket::{self, BINARY, CLOSE, FIN, Frame, PING, PONG, Socket, TEXT};
use crate::spelling;
use fanfare::dialect::schema;
use fanfare::topics::message::Wire;
use prost::Message as _;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// What connections talk over once they have begun.
pub(crate) const WIRES: [Wire; 5] = [
    Wire::WebSocketJson,
    Wire::WebSocketProto,
    Wire::TcpProto,
    Wire::WebSocketJsonBatch,
    Wire::WebSocketProtoBatch,
];

/// The wires in turn.
pub(crate) fn wire_of(turn: usize) -> Wire {
    WIRES[turn % WIRES.len()]
}

/// A connected client.
pub(crate) struct Client {
    /// How the next message is laid out.
    wire: Wire,
    /// On TCP only its pipe is used.
    socket: Socket,
    /// Events of a batch that have not been heard yet.
    ahead: VecDeque<Value>,
}

/// What ended a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) code: u16,
    pub(crate) name: String,
}

impl Ending {
    fn of(code: u16, reason: &str) -> Ending {
        Ending { code, name: reason.split(':').next().unwrap_or_default().to_owned() }
    }
}

/// What comes next on a connection: an event, or a message with its events.
enum Next<T> {
    Said(T),
    Close(Option<(u16, String)>),
    End,
}

impl<T> Next<T> {
    fn must_be_said(self) -> T {
        match self {
            Next::Said(said) => said,
            Next::Close(close) => panic!("closed with {close:?} instead of an event"),
            Next::End => panic!("ended instead of an event"),
        }
    }
}

/// A message and what it joins: one event, on a batched wire one or more.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Batch {
    /// Bytes of the message.
    pub(crate) len: usize,
    pub(crate) events: Vec<Value>,
}

impl Client {
    /// Connects.
    pub(crate) async fn connect(broker: &Broker, wire: Wire) -> Client {
        let address = match wire {
            Wire::TcpProto => broker.ingress(),
            _ => broker.public(),
        };
        Client::begin(broker, wire, Pipe::connect(address).await).await
    }

    /// Makes a client of a fresh connection.
    pub(crate) async fn begin(broker: &Broker, wire: Wire, pipe: Pipe) -> Client {
        let first = match wire {
            Wire::WebSocketJsonBatch => Wire::WebSocketJson,
            Wire::WebSocketProtoBatch => Wire::WebSocketProto,
            Wire::WebSocketJsonBatchDeflate => Wire::WebSocketJsonDeflate,
            Wire::WebSocketProtoBatchDeflate => Wire::WebSocketProtoDeflate,
            first => first,
        };
        let subprotocol = if first.is_json() { "fanfare.v1.json" } else { "fanfare.v1.proto" };
        let socket = match first {
            Wire::TcpProto => Socket::new(pipe),
            _ if first.is_deflated() => Socket::upgrade_compressed(broker, pipe, subprotocol).await,
            _ => Socket::upgrade(broker, pipe, Some(subprotocol)).await,
        };
        let mut client = Client::of(socket, first);
        if wire.is_batched() {
            let reply = client.ask(&json!({"id": 1, "connect": {"batch": true}})).await;
            assert_eq!(reply["connected"]["batch"], true, "{reply}");
        }
        client
    }

    /// A client on an open connection.
    pub(crate) fn of(socket: Socket, wire: Wire) -> Client {
        Client { wire, socket, ahead: VecDeque::new() }
    }

    /// Sends a command.
    pub(crate) async fn say(&mut self, command: &Value) {
        self.say_text(&command.to_string()).await;
    }

    /// Sends a command that is JSON already: as it stands where JSON is spoken.
    pub(crate) async fn say_text(&mut self, text: &str) {
        let bytes = self.spell(text);
        self.pipe().send(&bytes).await;
    }

    /// Sends commands so that one read brings them all.
    pub(crate) async fn say_together(&mut self, commands: &[Value]) {
        let bytes: Vec<u8> = commands.iter().flat_map(|c| self.spell(&c.to_string())).collect();
        self.pipe().send(&bytes).await;
    }

    /// The bytes of a command on this wire, its head included.
    pub(crate) fn spell(&self, text: &str) -> Vec<u8> {
        if self.wire.is_json() {
            return self.socket.spell(TEXT, text.as_bytes());
        }
        let json = serde_json::from_str(text).expect("a command of JSON");
        let proto = spelling::command(json).encode_to_vec();
        match self.wire {
            Wire::TcpProto => length_delimited(&proto),
            _ => self.socket.spell(BINARY, &proto),
        }
    }

    /// The next event.
    pub(crate) async fn hear(&mut self) -> Value {
        self.next().await.must_be_said()
    }

    /// The next message. The events of the one before must have been heard.
    pub(crate) async fn hear_batch(&mut self) -> Batch {
        assert!(self.ahead.is_empty(), "not heard yet: {:?}", self.ahead);
        self.next_batch().await.must_be_said()
    }

    /// The next event, or `None` if the server has closed.
    pub(crate) async fn try_hear(&mut self) -> Option<Value> {
        match self.next().await {
            Next::Said(event) => Some(event),
            Next::Close(_) | Next::End => None,
        }
    }

    /// The next event, or how the server closed. What TCP ends with is an error without an id.
    pub(crate) async fn hear_or_end(&mut self) -> Result<Value, Ending> {
        match self.next().await {
            Next::Said(event) if event["error"].is_object() && event["id"].is_null() => {
                Err(farewell(&event))
            }
            Next::Said(event) => Ok(event),
            Next::Close(Some((code, reason))) => Err(Ending::of(code, &reason)),
            Next::Close(None) => panic!("a close without a code"),
            Next::End => panic!("the end without a close"),
        }
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(self) {
        self.socket.pipe.reset();
    }

    /// Sends a command and takes the event that answers it, which must be the next one.
    pub(crate) async fn ask(&mut self, command: &Value) -> Value {
        self.say(command).await;
        let event = self.hear().await;
        assert_eq!(event["id"], command["id"], "{event}");
        event
    }

    /// The server must close now and end.
    pub(crate) async fn ending(mut self) -> Ending {
        let mut next = self.next().await;
        // A broker that stops says so before.
        if matches!(&next, Next::Said(event) if !event["reconnect"].is_null()) {
            next = self.next().await;
        }
        let ending = match next {
            Next::Close(Some((code, reason))) => {
                self.pipe().try_send(&socket::frame(FIN | CLOSE, &code.to_be_bytes())).await;
                Ending::of(code, &reason)
            }
            // On TCP an error without an id is the farewell if the end follows it.
            Next::Said(event) if self.wire == Wire::TcpProto && event["id"].is_null() => {
                farewell(&event)
            }
            Next::Said(event) => panic!("{event} instead of a close"),
            Next::Close(None) => panic!("a close without a code"),
            Next::End => panic!("the end without a close"),
        };
        self.pipe().end().await;
        ending
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The connection itself.
    pub(crate) fn pipe(&mut self) -> &mut Pipe {
        &mut self.socket.pipe
    }

    async fn next(&mut self) -> Next<Value> {
        if self.ahead.is_empty() {
            match self.next_batch().await {
                Next::Said(batch) => self.ahead = batch.events.into(),
                Next::Close(close) => return Next::Close(close),
                Next::End => return Next::End,
            }
        }
        Next::Said(self.ahead.pop_front().expect("a message has an event"))
    }

    async fn next_batch(&mut self) -> Next<Batch> {
        let message = match self.wire {
            Wire::TcpProto => self.message_of_tcp().await.map_or(Next::End, Next::Said),
            _ => self.message_of_web_socket().await,
        };
        let message = match message {
            Next::Said(message) => message,
            Next::Close(close) => return Next::Close(close),
            Next::End => return Next::End,
        };
        let events: Vec<Value> =
            split(&message, self.wire).into_iter().map(|event| read(event, self.wire)).collect();
        // What says that batches follow is not one yet.
        if events.iter().any(|event| event["connected"]["batch"] == true) {
            self.wire = self.wire.batched();
        }
        Next::Said(Batch { len: message.len(), events })
    }

    async fn message_of_tcp(&mut self) -> Option<Vec<u8>> {
        let length = self.pipe().take(4).await?;
        let length = u32::from_be_bytes(length.try_into().expect("4 bytes"));
        self.pipe().take(length as usize).await
    }

    async fn message_of_web_socket(&mut self) -> Next<Vec<u8>> {
        let expected = if self.wire.is_json() { TEXT } else { BINARY };
        loop {
            let Some(frame) = self.socket.try_frame().await else { return Next::End };
            match frame.opcode {
                PING => self.socket.send(PONG, &frame.payload).await,
                CLOSE => return Next::Close(frame.close()),
                opcode => {
                    assert_eq!(opcode, expected, "the kind of message of the other spelling");
                    let Frame { payload, .. } = frame;
                    return Next::Said(payload);
                }
            }
        }
    }
}

/// The events that a message joins.
fn split(message: &[u8], wire: Wire) -> Vec<&[u8]> {
    if !wire.is_batched() {
        assert!(!wire.is_json() || !message.contains(&b'\n'), "an event on more than one line");
        return vec![message];
    }
    assert!(!message.is_empty(), "a batch without an event");
    let mut events = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let (len, skipped) = if wire.is_json() {
            let end = rest.iter().position(|byte| *byte == b'\n');
            (end.expect("an event of a batch ends its line"), 1)
        } else {
            let mut after = rest;
            let len = prost::decode_length_delimiter(&mut after).expect("the length of an event");
            rest = after;
            (len, 0)
        };
        let (event, after) = rest.split_at(len);
        events.push(event);
        rest = &after[skipped..];
    }
    events
}

fn read(event: &[u8], wire: Wire) -> Value {
    if wire.is_json() {
        serde_json::from_slice(event).expect("JSON")
    } else {
        spelling::event(schema::Event::decode(event).expect("an event of the schema"))
    }
}

/// What an error without an id says about the end of a TCP connection.
fn farewell(event: &Value) -> Ending {
    let code = event["error"]["code"].as_u64().expect("a code");
    let name = event["error"]["name"].as_str().expect("a name").to_owned();
    Ending { code: u16::try_from(code).expect("a code"), name }
}

/// A message with its length in front of it.
pub(crate) fn length_delimited(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short");
    [&length.to_be_bytes()[..], message].concat()
}
