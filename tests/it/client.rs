//! A client of the protocol on any of its three wires, which tests talk to in JSON.
//! # Invariants: what is said and heard over protobuf goes through the generated types of the
//! schema, not through the broker's own code.
//! # Not here: what the commands mean.

use crate::harness::Broker;
use crate::pipe::Pipe;
use crate::socket::{self, BINARY, CLOSE, FIN, Frame, PING, PONG, Socket, TEXT};
use crate::spelling;
use fanfare::dialect::schema;
use fanfare::topics::message::Wire;
use prost::Message as _;
use serde_json::Value;

/// What connections begin with.
pub(crate) const WIRES: [Wire; 3] = [Wire::WebSocketJson, Wire::WebSocketProto, Wire::TcpProto];

/// A connected client.
pub(crate) enum Client {
    Json(Socket),
    Proto(Socket),
    Tcp(Pipe),
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

/// What comes next on a connection.
enum Next {
    Event(Value),
    Close(Option<(u16, String)>),
    End,
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
        match wire {
            Wire::WebSocketJson => {
                Client::Json(Socket::upgrade(broker, pipe, Some("fanfare.v1.json")).await)
            }
            Wire::WebSocketProto => {
                Client::Proto(Socket::upgrade(broker, pipe, Some("fanfare.v1.proto")).await)
            }
            Wire::TcpProto => Client::Tcp(pipe),
            other => panic!("no client begins with {other:?}"),
        }
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

    /// The bytes of a command on this wire, its head included.
    pub(crate) fn spell(&self, text: &str) -> Vec<u8> {
        let proto = || {
            let json = serde_json::from_str(text).expect("a command of JSON");
            spelling::command(json).encode_to_vec()
        };
        match self {
            Client::Json(_) => socket::frame(FIN | TEXT, text.as_bytes()),
            Client::Proto(_) => socket::frame(FIN | BINARY, &proto()),
            Client::Tcp(_) => length_delimited(&proto()),
        }
    }

    /// The next event.
    pub(crate) async fn hear(&mut self) -> Value {
        match self.next().await {
            Next::Event(event) => event,
            Next::Close(close) => panic!("closed with {close:?} instead of an event"),
            Next::End => panic!("ended instead of an event"),
        }
    }

    /// The next event, or `None` if the server has closed.
    pub(crate) async fn try_hear(&mut self) -> Option<Value> {
        match self.next().await {
            Next::Event(event) => Some(event),
            Next::Close(_) | Next::End => None,
        }
    }

    /// The next event, or how the server closed. What TCP ends with is an error without an id.
    pub(crate) async fn hear_or_end(&mut self) -> Result<Value, Ending> {
        match self.next().await {
            Next::Event(event) if event["error"].is_object() && event["id"].is_null() => {
                Err(farewell(&event))
            }
            Next::Event(event) => Ok(event),
            Next::Close(Some((code, reason))) => Err(Ending::of(code, &reason)),
            Next::Close(None) => panic!("a close without a code"),
            Next::End => panic!("the end without a close"),
        }
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(self) {
        match self {
            Client::Json(socket) | Client::Proto(socket) => socket.pipe.reset(),
            Client::Tcp(pipe) => pipe.reset(),
        }
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
        let ending = match self.next().await {
            Next::Close(Some((code, reason))) => {
                self.pipe().try_send(&socket::frame(FIN | CLOSE, &code.to_be_bytes())).await;
                Ending::of(code, &reason)
            }
            // On TCP an error without an id is the farewell if the end follows it.
            Next::Event(event) if matches!(self, Client::Tcp(_)) && event["id"].is_null() => {
                farewell(&event)
            }
            Next::Event(event) => panic!("{event} instead of a close"),
            Next::Close(None) => panic!("a close without a code"),
            Next::End => panic!("the end without a close"),
        };
        self.pipe().end().await;
        ending
    }

    /// The connection itself.
    pub(crate) fn pipe(&mut self) -> &mut Pipe {
        match self {
            Client::Json(socket) | Client::Proto(socket) => &mut socket.pipe,
            Client::Tcp(pipe) => pipe,
        }
    }

    async fn next(&mut self) -> Next {
        loop {
            let (socket, opcode) = match self {
                Client::Json(socket) => (socket, TEXT),
                Client::Proto(socket) => (socket, BINARY),
                Client::Tcp(pipe) => return next_on_tcp(pipe).await,
            };
            let Some(frame) = socket.try_frame().await else { return Next::End };
            let Frame { opcode: got, payload } = frame;
            match got {
                PING => socket.send(PONG, &payload).await,
                CLOSE => return Next::Close(Frame { opcode: got, payload }.close()),
                _ => {
                    assert_eq!(got, opcode, "the kind of message of the other spelling");
                    return Next::Event(match self {
                        Client::Json(_) => serde_json::from_slice(&payload).expect("JSON"),
                        Client::Proto(_) | Client::Tcp(_) => event(&payload),
                    });
                }
            }
        }
    }
}

/// What an error without an id says about the end of a TCP connection.
fn farewell(event: &Value) -> Ending {
    let code = event["error"]["code"].as_u64().expect("a code");
    let name = event["error"]["name"].as_str().expect("a name").to_owned();
    Ending { code: u16::try_from(code).expect("a code"), name }
}

async fn next_on_tcp(pipe: &mut Pipe) -> Next {
    let Some(length) = pipe.take(4).await else { return Next::End };
    let length = u32::from_be_bytes(length.try_into().expect("4 bytes"));
    match pipe.take(length as usize).await {
        Some(bytes) => Next::Event(event(&bytes)),
        None => Next::End,
    }
}

fn event(bytes: &[u8]) -> Value {
    spelling::event(schema::Event::decode(bytes).expect("an event of the schema"))
}

/// A message with its length in front of it.
pub(crate) fn length_delimited(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short");
    [&length.to_be_bytes()[..], message].concat()
}
