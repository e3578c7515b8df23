//! What an application holds: the client, and the way to one.
//! # Invariants: a client ends when nobody holds it or a subscription of it.
//! # Not here: what happens meanwhile (`driver`, `pilot`).

use super::backoff::Backoff;
use super::driver::{Shared, drive, no_runtime};
use super::endpoint::Endpoint;
use super::error::Error;
use super::event::{HistoryPage, Presence};
use super::pilot::{Settings, State, Tokens};
use super::publishing::Publishing;
use super::subscribing::Subscribing;
use super::token::Source;
use super::wire::{Dial, Fault, Trust};
use crate::clock::Clock;
use crate::dialect::Dialect;
use crate::dialect::schema::{self, command::Action, event::Body};
use crate::topics::message::Position;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

/// What an await on a builder becomes.
pub(super) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A connection to a broker that mends itself. Its clones are the same client.
///
/// It ends by [`Client::close`], when nobody holds it or one of its subscriptions any more, and when the
/// server says that coming back is of no use.
///
/// ```
/// # use fanfare::{client::Error, config, server::Server};
/// # let settings = "shards = 1\nlisten = { public = '127.0.0.1:0', ingress = 'off', admin = 'off' }";
/// # let file = Some(("example.toml".into(), settings.to_owned()));
/// # let config = config::load(config::Sources { file, ..Default::default() }).unwrap().config;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let broker = Server::start(&config, None).unwrap();
/// # let url = format!("ws://{}/ws", broker.addresses.public);
/// use fanfare::client::{Client, Event};
///
/// let client = Client::connect(&url).open().await?;
/// let mut room = client.subscribe("room.*").await?;
/// let published = client.publish("room.1").json(&["hello", "world"]).await?;
///
/// while let Some(event) = room.next().await {
///     if let Event::Message(message) = event? {
///         assert_eq!(message.position(), Some(published.position));
///         assert_eq!(message.json::<Vec<String>>().unwrap(), ["hello", "world"]);
///         break;
///     }
/// }
/// client.close().await;
/// # Ok::<(), Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Client {
    held: Arc<Held>,
}

/// Ends the client when nobody holds it any more.
struct Held {
    shared: Arc<Shared>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.ask(|pilot, _| pilot.close());
    }
}

impl Client {
    /// Where a broker is: `ws://127.0.0.1:7600/ws`, `wss://…`, `tcp://127.0.0.1:7601`, `tls://…`; and
    /// `http://…` or `https://…`, by which nothing can be done but publish.
    pub fn connect(url: &str) -> Connecting {
        Connecting::new(url.parse().map_err(|error| {
            Error::from(Fault::Setup(format!("{url} is no address of a broker: {error}")))
        }))
    }

    /// The same for an address that was read before.
    pub fn at(endpoint: Endpoint) -> Connecting {
        Connecting::new(Ok(endpoint))
    }

    /// Subscribes to a topic, or to every topic that a filter matches: `*` stands for one segment, a final
    /// `>` for one or more. Await what is returned.
    pub fn subscribe(&self, topic: &str) -> Subscribing {
        Subscribing::new(self.clone(), topic)
    }

    /// Publishes a message to a topic. Await what is returned, once it has a payload.
    pub fn publish(&self, topic: &str) -> Publishing {
        Publishing::new(self.clone(), topic)
    }

    /// Asks for messages that a topic still holds. Await what is returned.
    pub fn history(&self, topic: &str) -> Asking {
        let history = schema::History { topic: topic.to_owned(), ..Default::default() };
        Asking { client: self.clone(), history }
    }

    /// Asks who is subscribed to exactly this topic.
    ///
    /// # Errors
    /// The server refuses, or the connection ends before the answer.
    pub async fn presence(&self, topic: &str) -> Result<Presence, Error> {
        let presence = schema::Presence { topic: topic.to_owned() };
        match self.ask(Action::Presence(presence)).await? {
            Body::PresenceState(state) => Ok(state.into()),
            other => Err(unfitting(&other)),
        }
    }

    /// Asks the server for a sign of life. Returns how long it took.
    ///
    /// # Errors
    /// The connection ends before the answer.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let clock = Clock::start();
        match self.ask(Action::Ping(schema::Ping {})).await? {
            Body::Pong(_) => Ok(clock.now().uptime),
            other => Err(unfitting(&other)),
        }
    }

    /// Where the connection stands.
    pub fn state(&self) -> State {
        self.shared().states().borrow().clone()
    }

    /// Tells where the connection stands, now and whenever that changes. Of changes that follow each other
    /// quickly it may tell the last one alone.
    pub fn states(&self) -> States {
        let mut receiver = self.shared().states();
        receiver.mark_changed();
        States { receiver, is_over: false }
    }

    /// Ends every subscription and the connection, for good, and waits until the server has heard of it.
    /// Calls without an answer fail.
    pub async fn close(&self) {
        self.shared().ask(|pilot, _| pilot.close());
        self.shared().ended().await;
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.held.shared
    }

    /// Makes a command, which is on its way when this returns. The answer comes by the channel.
    pub(super) fn call(
        &self,
        action: Action,
    ) -> Result<oneshot::Receiver<Result<Body, Error>>, Error> {
        let (reply, answer) = oneshot::channel();
        self.shared().ask(|pilot, now| pilot.call(now, action, reply))?;
        Ok(answer)
    }

    async fn ask(&self, action: Action) -> Result<Body, Error> {
        self.call(action)?.await.unwrap_or_else(|_| Err(Error::closed()))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("state", &self.state()).finish_non_exhaustive()
    }
}

/// The server has answered something else.
pub(super) fn unfitting(body: &Body) -> Error {
    Error::from(Fault::Malformed(format!("an answer that does not fit: {body:?}")))
}

/// Tells where a connection stands. Made by [`Client::states`].
#[derive(Debug)]
pub struct States {
    receiver: watch::Receiver<State>,
    is_over: bool,
}

impl States {
    /// Waits for the next state; `None` after the last, which is [`State::Closed`].
    pub async fn next(&mut self) -> Option<State> {
        if self.is_over || self.receiver.changed().await.is_err() {
            return None;
        }
        let state = self.receiver.borrow_and_update().clone();
        self.is_over = matches!(state, State::Closed { .. });
        Some(state)
    }
}

/// The way to a client: say what is needed, then [`Connecting::open`].
#[must_use = "nothing happens before `open` or `start`"]
pub struct Connecting {
    endpoint: Result<Endpoint, Error>,
    dialect: Dialect,
    trust: Trust,
    source: Source,
    name: String,
    backoff: (Duration, Duration),
    stable: Duration,
    patience: Duration,
    silence: Duration,
    answer: Duration,
    queue: usize,
}

impl Connecting {
    fn new(endpoint: Result<Endpoint, Error>) -> Connecting {
        Connecting {
            endpoint,
            dialect: Dialect::Json,
            trust: Trust::default(),
            source: Source::Nowhere,
            name: String::new(),
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
            stable: Duration::from_secs(10),
            patience: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            queue: 1_000,
        }
    }

    /// Who this client is, for a server that wants to know.
    pub fn token(mut self, token: impl Into<String>) -> Connecting {
        self.source = Source::Fixed(token.into());
        self
    }

    /// A function that gets a token. It is asked before each connection, and once more when a fifth of
    /// the token's life is left; the connection goes on with the new one.
    pub fn token_with<F, T, E>(mut self, fetch: F) -> Connecting
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.source = Source::function(fetch);
        self
    }

    /// What others who look at a topic's presence see of this client.
    pub fn name(mut self, name: impl Into<String>) -> Connecting {
        self.name = name.into();
        self
    }

    /// Speaks protobuf instead of JSON over a WebSocket. Over TCP it is protobuf always.
    pub fn protobuf(mut self) -> Connecting {
        self.dialect = Dialect::Proto;
        self
    }

    /// With TLS: who is believed, and who we are. Left out, it is the authorities of the system.
    pub fn trust(mut self, trust: Trust) -> Connecting {
        self.trust = trust;
        self
    }

    /// The first wait before a reconnect is random up to `first`, and the bound doubles from try to try
    /// up to `max`; 500 ms and 30 s. A connection of ten seconds begins anew.
    pub fn backoff(mut self, first: Duration, max: Duration) -> Connecting {
        self.backoff = (first, max);
        self
    }

    /// How long each step to a connection may take: getting a token, connecting, and the server's hello;
    /// 10 s.
    pub fn patience(mut self, patience: Duration) -> Connecting {
        self.patience = patience;
        self
    }

    /// How much longer than it has promised to ping the server may be silent: 10 s.
    pub fn silence(mut self, silence: Duration) -> Connecting {
        self.silence = silence;
        self
    }

    /// How long an answer may take while the connection is there: 30 s.
    pub fn answer(mut self, answer: Duration) -> Connecting {
        self.answer = answer;
        self
    }

    /// How many calls may wait for an answer, with a connection or without: 1,000.
    pub fn queue(mut self, calls: usize) -> Connecting {
        self.queue = calls;
        self
    }

    /// Connects, and waits until the server has said hello.
    ///
    /// # Errors
    /// The first attempt fails, whatever the reason; [`Connecting::start`] would try again.
    pub async fn open(self) -> Result<Client, Error> {
        let client = self.start()?;
        let mut states = client.states();
        while let Some(state) = states.next().await {
            match state {
                State::Connecting => {}
                State::Connected { .. } => return Ok(client),
                State::Waiting { reason, .. } => return Err(reason),
                State::Closed { error } => return Err(error.unwrap_or_else(Error::closed)),
            }
        }
        Err(Error::closed())
    }

    /// Begins to connect, and tries again until that succeeds or is of no use. What is asked for meanwhile
    /// waits.
    ///
    /// # Errors
    /// Something is wrong with the address or a file, or there is no Tokio runtime.
    pub fn start(self) -> Result<Client, Error> {
        let runtime = Handle::try_current().map_err(|_| no_runtime())?;
        let dial = Dial::new(self.endpoint?, self.dialect, &self.trust, self.patience)?;
        let tokens = match self.source {
            Source::Nowhere | Source::Fixed(_) => Tokens::Fixed,
            Source::Function(_) => Tokens::Renewed,
        };
        let seed = getrandom::u64().map_err(|error| Fault::Setup(error.to_string()))?;
        let shared = Arc::new(Shared::new(Settings {
            name: self.name,
            backoff: Backoff::new(self.backoff.0, self.backoff.1, seed),
            stable: self.stable,
            patience: self.patience,
            silence: self.silence,
            answer: self.answer,
            queue_max: self.queue,
            // The server forgets idempotency keys after five minutes.
            retry_max: Duration::from_mins(4),
            tokens,
        }));
        runtime.spawn(drive(Arc::clone(&shared), dial, self.source));
        Ok(Client { held: Arc::new(Held { shared }) })
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A question about the past of a topic. Made by [`Client::history`].
#[derive(Debug)]
#[must_use = "nothing is asked before it is awaited"]
pub struct Asking {
    client: Client,
    history: schema::History,
}

impl Asking {
    /// Only messages after this position; without it, the latest ones.
    pub fn since(mut self, position: Position) -> Asking {
        let epoch = position.epoch.to_string();
        self.history.since = Some(schema::Position { epoch, offset: position.offset.0 });
        self
    }

    /// At most so many; without it, as many as one page holds.
    pub fn limit(mut self, limit: u32) -> Asking {
        self.history.limit = limit;
        self
    }
}

impl IntoFuture for Asking {
    type Output = Result<HistoryPage, Error>;
    type IntoFuture = Boxed<Self::Output>;

    fn into_future(self) -> Boxed<Self::Output> {
        Box::pin(async move {
            match self.client.ask(Action::History(self.history)).await? {
                Body::HistoryPage(page) => Ok(HistoryPage::of(page)?),
                other => Err(unfitting(&other)),
            }
        })
    }
}
