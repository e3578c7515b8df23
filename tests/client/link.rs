//! What stands between a client and a broker, and can be cut.
//! # Invariants: what is cut has ended for both sides when `cut` returns.
//! # Not here: a server that misbehaves (`script`).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

/// What happens to what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// It is passed on.
    Open,
    /// It is passed on to the broker, and what the broker says is not.
    Mute,
    /// New connections end at once.
    Shut,
}

/// A proxy.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    mood: watch::Sender<Mood>,
    target: Arc<Mutex<SocketAddr>>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

impl Link {
    /// Stands before who listens there.
    pub(crate) async fn to(target: SocketAddr) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mood = watch::Sender::new(Mood::Open);
        let (target, connections) = (Arc::new(Mutex::new(target)), Arc::default());
        let shared = (Arc::clone(&target), Arc::clone(&connections));
        let accepting = tokio::spawn(accept(listener, mood.clone(), shared));
        Link { address, mood, target, connections, accepting }
    }

    /// Ends all connections, as if a cable were cut.
    pub(crate) fn cut(&self) {
        for connection in self.connections.lock().expect("no panic").drain(..) {
            connection.abort();
        }
    }

    /// Ends all connections, and lets no other one be.
    pub(crate) fn shut(&self) {
        self.mood.send_replace(Mood::Shut);
        self.cut();
    }

    /// Swallows what the broker says from now on.
    pub(crate) fn mute(&self) {
        self.mood.send_replace(Mood::Mute);
    }

    /// Passes everything on again.
    pub(crate) fn open(&self) {
        self.mood.send_replace(Mood::Open);
    }

    /// Leads elsewhere from the next connection on.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().expect("no panic") = target;
    }
}

type Shared = (Arc<Mutex<SocketAddr>>, Arc<Mutex<Vec<AbortHandle>>>);

async fn accept(listener: TcpListener, mood: watch::Sender<Mood>, (target, all): Shared) {
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        if *mood.borrow() == Mood::Shut {
            continue;
        }
        let (target, mood) = (*target.lock().expect("no panic"), mood.subscribe());
        let task = tokio::spawn(async move {
            let Ok(broker) = TcpStream::connect(target).await else { return };
            let (client_in, client_out) = client.into_split();
            let (broker_in, broker_out) = broker.into_split();
            let always = watch::Sender::new(Mood::Open);
            tokio::select! {
                () = pass(client_in, broker_out, always.subscribe()) => {}
                () = pass(broker_in, client_out, mood) => {}
            }
        });
        all.lock().expect("no panic").push(task.abort_handle());
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mood: watch::Receiver<Mood>,
) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if *mood.borrow() != Mood::Mute && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
