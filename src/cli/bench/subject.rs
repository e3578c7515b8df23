//! What is measured: a broker or the limit, as a process apart.
//! Owns the children that a bench starts.
//! # Invariants: a child is ended by its pid, also when the bench fails; if the bench is killed, its
//! children end with it.
//! # Not here: how clients talk (`speech`), what they measure.

use super::args::{Engine, SubjectArgs};
use super::conduit::{Conduit, Secure};
use super::cores::Cores;
use super::error::BenchError;
use super::process::Process;
use super::speech::Speech;
use crate::cli::args::TrustArgs;
use crate::client::endpoint::{Endpoint, Security};
use crate::client::wire::tls_config;
use rustls::pki_types::ServerName;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Time for a child to begin to listen, and to end.
const CHILD_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Lines of a child that wait to be looked at.
const LINES_MAX: usize = 64;

/// Where and how to talk to a server.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) place: Place,
    /// The `Host` header.
    pub(super) authority: String,
    /// The path of a WebSocket.
    pub(super) path: String,
    pub(super) speech: Speech,
}

/// A server that is measured.
pub(super) struct Subject {
    pub(super) target: Target,
    /// The TCP ingress.
    pub(super) ingress: Option<Place>,
    /// Nothing if the system does not tell, or nobody said which process it is.
    pub(super) process: Option<Process>,
    /// Nothing if it ran before.
    _child: Option<Guard>,
}

/// Where something listens, and who it must prove to be.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    /// `None` where plain text is spoken.
    pub(super) secure: Option<Secure>,
}

impl Place {
    fn of(endpoint: &Endpoint, trust: &TrustArgs) -> Result<Place, BenchError> {
        let nowhere = |error| BenchError::NoBroker { address: endpoint.to_string(), error };
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let all = (endpoint.host.as_str(), endpoint.port).to_socket_addrs();
        let first = all.and_then(|mut all| all.next().ok_or_else(unknown));
        let secure = match endpoint.security {
            Security::Plain => None,
            Security::Tls => Some(secure(&endpoint.host, trust).map_err(nowhere)?),
        };
        Ok(Place { address: first.map_err(nowhere)?, secure })
    }

    /// Makes a connection, waiting for it.
    pub(super) fn connect(&self) -> Result<Conduit<TcpStream>, BenchError> {
        let address = self.address;
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).and_then(|stream| {
            stream.set_nodelay(true)?;
            Conduit::new(stream, self.secure.as_ref())
        });
        stream.map_err(|error| BenchError::NoBroker { address: address.to_string(), error })
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Place {
        Place { address, secure: None }
    }
}

fn secure(host: &str, trust: &TrustArgs) -> io::Result<Secure> {
    let config = Arc::new(tls_config(&trust.trust()).map_err(io::Error::other)?);
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| io::Error::other(format!("{host} is no name for TLS")))?;
    Ok(Secure { config, name })
}

impl Subject {
    /// The broker that is meant: one that runs, or a child.
    pub(super) fn broker(
        args: &SubjectArgs,
        speech: Speech,
        cores: &Cores,
    ) -> Result<Subject, BenchError> {
        match &args.address {
            Some(endpoint) => Subject::running(args, endpoint, speech),
            None => Subject::started(args, speech, cores),
        }
    }

    fn running(
        args: &SubjectArgs,
        endpoint: &Endpoint,
        speech: Speech,
    ) -> Result<Subject, BenchError> {
        let process = match args.pid {
            Some(pid) => Some(Process::of(pid).ok_or(BenchError::NoProcess(pid))?),
            None => None,
        };
        let target = Target {
            place: Place::of(endpoint, &args.trust)?,
            authority: endpoint.authority(),
            path: endpoint.path.clone(),
            speech,
        };
        // Says at once if nobody is there.
        target.place.connect()?;
        let ingress = args.ingress.as_ref().map(|ingress| Place::of(ingress, &args.trust));
        let ingress = ingress.transpose()?;
        Ok(Subject { target, ingress, process, _child: None })
    }

    fn started(args: &SubjectArgs, speech: Speech, cores: &Cores) -> Result<Subject, BenchError> {
        let what = "the broker";
        let shards = args.shards.to_string();
        let config = args.config.as_ref().map(|path| path.to_string_lossy().into_owned());
        let any = "127.0.0.1:0";
        let arguments = [
            &["bench", "broker", "--listen", any, "--ingress", any, "--admin", "off"][..],
            &["--shards", &shards, "--log-format", "json", "--log-level", "info"],
            // An empty file: not the one that happens to lie in this folder.
            &["--config", config.as_deref().unwrap_or("/dev/null")],
        ];
        // How fast strangers are let in is not what is measured, unless somebody says so.
        let settings: &[_] = match args.config {
            None => &[("LIMITS__ACCEPT_RATE", "1000000")],
            Some(_) => &[],
        };
        let (child, lines) = Guard::start(what, &arguments.concat(), settings, cores)?;
        let address = |message| {
            lines.find(what, |line| {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                let text = |key| line.get(key).and_then(serde_json::Value::as_str);
                (text("message") == Some(message)).then(|| text("address")?.parse().ok())?
            })
        };
        let public: SocketAddr = address("listening for WebSocket and HTTP")?;
        let ingress: SocketAddr = address("listening for TCP ingress")?;
        let target = Target {
            place: public.into(),
            authority: public.to_string(),
            path: "/ws".to_owned(),
            speech,
        };
        let process = Process::of(child.0.id());
        Ok(Subject { target, ingress: Some(ingress.into()), process, _child: Some(child) })
    }

    /// The limit, as a child.
    pub(super) fn limit(engine: Engine, cores: &Cores) -> Result<Subject, BenchError> {
        let what = "the limit";
        let arguments =
            ["bench", "limit", "--address", "127.0.0.1:0", "--engine", engine.name(), "--child"];
        let (child, lines) = Guard::start(what, &arguments, &[], cores)?;
        let address: SocketAddr = lines
            .find(what, |line| line.strip_prefix(super::limit::LISTENING)?.trim().parse().ok())?;
        let target = Target {
            place: address.into(),
            authority: address.to_string(),
            path: "/".to_owned(),
            speech: Speech::Bare,
        };
        let process = Process::of(child.0.id());
        Ok(Subject { target, ingress: None, process, _child: Some(child) })
    }
}

/// A child that ends when this goes.
struct Guard(Child);

/// What a child says on standard error.
struct Lines(Receiver<String>);

impl Guard {
    fn start(
        what: &'static str,
        arguments: &[&str],
        settings: &[(&str, &str)],
        cores: &Cores,
    ) -> Result<(Guard, Lines), BenchError> {
        let failed = |error| BenchError::Spawn { what, error };
        let executable = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(executable);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // What is measured is what was typed, and not what this shell happens to have set.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(crate::config::source::PREFIX) {
                command.env_remove(name);
            }
        }
        for (key, value) in settings {
            command.env(format!("{}{key}", crate::config::source::PREFIX), value);
        }
        let mut child = cores.of_the_broker(|| command.spawn()).map_err(failed)?;
        let stderr = child.stderr.take();
        let guard = Guard(child);
        let lines = Lines::of(stderr.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?);
        Ok((guard, lines))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap_or_default();
        let step = Duration::from_millis(5);
        for _ in 0..CHILD_TIMEOUT.as_millis() / step.as_millis() {
            match self.0.try_wait() {
                Ok(None) => super::stopwatch::rest(step),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        // It has had its time.
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

impl Lines {
    /// Reads until the end, because a child whose pipe is full would wait for its reader.
    fn of(pipe: impl Read + Send + 'static) -> Lines {
        let (sender, receiver) = sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                // Nobody needs the lines of a child that has begun to listen.
                sender.try_send(line).unwrap_or_default();
            }
        });
        Lines(receiver)
    }

    /// Waits for a line that says what is looked for.
    fn find<T>(
        &self,
        what: &'static str,
        look: impl Fn(&str) -> Option<T>,
    ) -> Result<T, BenchError> {
        let mut last = VecDeque::with_capacity(2);
        let silent = |words: String| BenchError::Child { what, words };
        loop {
            match self.0.recv_timeout(CHILD_TIMEOUT) {
                Ok(line) => match look(&line) {
                    Some(found) => return Ok(found),
                    None => last.push_back(line),
                },
                Err(RecvTimeoutError::Timeout) => {
                    return Err(silent(format!(" within {} seconds", CHILD_TIMEOUT.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let words = last.pop_back().map_or_else(String::new, |l| format!(": {l}"));
                    return Err(silent(words));
                }
            }
        }
    }
}
