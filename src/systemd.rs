//! The service manager: the sockets that it hands over, and what it is told.
//! Owns both sides of its protocol, `sd_listen_fds(3)` and `sd_notify(3)`.
//! # Invariants: without a service manager everything here does nothing; a socket that is handed
//! over listens for TCP and is known by its name; a missing sign of life is never made up.
//! # Not here: when there is something to tell (`cli`), what life is (`shard`).

use sd_notify::NotifyState;
use socket2::SockRef;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// The shortest patience of a watchdog that is not at the mercy of scheduling: an idle shard shows
/// life once a second, and is asked twice in this time.
pub const PATIENCE_MIN: Duration = Duration::from_secs(4);

/// The names that sockets are handed over by, and the settings that they stand for.
const NAMES: [(&str, &str); 3] =
    [("public", "listen.public"), ("ingress", "listen.ingress"), ("admin", "listen.admin")];

/// Sockets that somebody else has bound, so that connections wait while the broker restarts.
#[derive(Debug, Default)]
pub struct Inherited {
    /// In the order of [`NAMES`].
    sockets: [Option<Socket>; 3],
}

/// A listening socket and its address.
type Socket = (TcpListener, SocketAddr);

/// Why what was handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// The variables do not fit each other or the open files.
    #[error("LISTEN_FDS or LISTEN_FDNAMES is not sound: {0}")]
    Variables(String),
    /// A name that stands for nothing here.
    #[error(
        "a socket was handed over as `{0}`: name it public, ingress or admin by FileDescriptorName="
    )]
    Name(String),
    /// Two sockets for one purpose.
    #[error("two sockets were handed over as `{0}`, there can be one")]
    Twice(&'static str),
    /// A socket for something else.
    #[error("what was handed over as `{0}` is not a listening TCP socket")]
    Kind(&'static str),
}

impl Inherited {
    /// Takes the sockets that the service manager has handed over to this process. To be called
    /// once, and before other files are opened.
    ///
    /// # Errors
    /// [`InheritError`].
    pub fn take() -> Result<Inherited, InheritError> {
        // Looks whether the files are open and keeps them from children; the other crate owns them.
        let unsound = |error: io::Error| InheritError::Variables(error.to_string());
        drop(sd_notify::listen_fds_with_names().map_err(unsound)?);
        let handed_over = sd_listen_fds::get();
        let handed_over =
            handed_over.map_err(|error| InheritError::Variables(error.to_string()))?;
        Inherited::of(handed_over.into_iter().map(|(name, file)| (name, TcpListener::from(file))))
    }

    fn of(
        handed_over: impl IntoIterator<Item = (Option<String>, TcpListener)>,
    ) -> Result<Inherited, InheritError> {
        let mut inherited = Inherited::default();
        for (name, listener) in handed_over {
            let name = name.unwrap_or_else(|| "unknown".to_owned());
            let places = NAMES.iter().zip(&mut inherited.sockets);
            let Some((name, place)) =
                places.map(|((known, _), place)| (*known, place)).find(|(known, _)| *known == name)
            else {
                return Err(InheritError::Name(name));
            };
            let address = listener.local_addr().map_err(|_| InheritError::Kind(name))?;
            if !listens(&listener) {
                return Err(InheritError::Kind(name));
            }
            if place.replace((listener, address)).is_some() {
                return Err(InheritError::Twice(name));
            }
        }
        Ok(inherited)
    }

    /// The settings that the sockets stand for, and their addresses.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let sockets = NAMES.iter().zip(&self.sockets);
        sockets.filter_map(|((_, key), socket)| Some((*key, socket.as_ref()?.1)))
    }

    /// Takes the socket of a setting, such as `listen.public`.
    pub fn socket(&mut self, key: &str) -> Option<TcpListener> {
        let mut sockets = NAMES.iter().zip(&mut self.sockets);
        let (_, socket) = sockets.find(|((_, known), _)| *known == key)?;
        socket.take().map(|(listener, _)| listener)
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn listens(listener: &TcpListener) -> bool {
    SockRef::from(listener).is_listener().unwrap_or(false)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn listens(_: &TcpListener) -> bool {
    true
}

/// What the service manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Connections are welcome.
    Ready,
    /// The configuration is read anew; [`State::Ready`] follows.
    Reloading,
    /// The broker drains.
    Stopping,
}

/// Tells the service manager, if there is one.
pub fn tell(state: State) {
    match state {
        State::Ready => send(&[NotifyState::Ready]),
        State::Reloading => match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "the service manager could not be told"),
        },
        State::Stopping => send(&[NotifyState::Stopping]),
    }
}

/// Shows the watchdog, if there is one, twice in its patience that the broker is alive; not when
/// `is_alive` denies it, and then the service manager restarts the process. Ends only without a
/// watchdog.
pub async fn watch(mut is_alive: impl FnMut() -> bool) {
    let Some(patience) = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())
    else {
        return;
    };
    if patience < PATIENCE_MIN {
        let (seconds, least) = (patience.as_secs_f64(), PATIENCE_MIN.as_secs());
        tracing::warn!(seconds, least, "the watchdog is less patient than it should be");
    }
    loop {
        tokio::time::sleep(patience / 2).await;
        if is_alive() {
            send(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("a shard shows no life: the watchdog is not told otherwise");
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").expect("a port")
    }

    fn taken(sockets: Vec<(&str, TcpListener)>) -> Result<Inherited, String> {
        let sockets = sockets.into_iter().map(|(name, socket)| (Some(name.to_owned()), socket));
        Inherited::of(sockets).map_err(|error| error.to_string())
    }

    #[test]
    fn sockets_are_known_by_their_names_in_any_order() {
        let (admin, public) = (listener(), listener());
        let address = |listener: &TcpListener| listener.local_addr().expect("an address");
        let expected = [("listen.public", address(&public)), ("listen.admin", address(&admin))];
        let mut inherited = taken(vec![("admin", admin), ("public", public)]).expect("two sockets");
        assert_eq!(inherited.addresses().collect::<Vec<_>>(), expected);
        assert!(inherited.socket("listen.ingress").is_none());
        let public = inherited.socket("listen.public").expect("the public one");
        assert_eq!(address(&public), expected[0].1);
        assert!(inherited.socket("listen.public").is_none(), "it can be taken twice");
    }

    #[test]
    fn what_cannot_be_used_is_refused_for_its_own_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let unix = UnixListener::bind(folder.path().join("socket")).expect("a socket");
        let unix = TcpListener::from(OwnedFd::from(unix));
        let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let deaf = TcpListener::from(deaf.expect("a socket"));
        let cases = [
            (vec![("web", listener())], "handed over as `web`: name it public, ingress or admin"),
            (vec![("admin", listener()), ("admin", listener())], "two sockets"),
            (vec![("public", unix)], "`public` is not a listening TCP socket"),
            (vec![("ingress", deaf)], "`ingress` is not a listening TCP socket"),
        ];
        for (sockets, words) in cases {
            let error = taken(sockets).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
        let unnamed = Inherited::of([(None, listener())]).expect_err("it has no name");
        assert!(unnamed.to_string().contains("`unknown`"), "{unnamed}");
    }
}
