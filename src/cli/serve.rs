//! `fanfare serve` and `fanfare demo`: starts a broker, says where it is, reads its configuration anew
//! and ends it, on a signal or because an operator asks.
//! # Invariants: the first signal to end drains, the second ends at once; the exit status says whether
//! everybody was told, or that the broker stopped by itself because of its bugs.
//! # Not here: what the broker consists of (`server`).

use super::log::{self, Level};
use super::panics::Panics;
use super::settings::ConfigArgs;
use crate::config::{Config, Flag};
use crate::control::{BadReload, Changes, Request};
use crate::demo::Feeds;
use crate::server::{Addresses, Server};
use crate::systemd::{self, Inherited, State};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whether the broker publishes feeds of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It does not.
    Serve,
    /// It publishes this host's numbers and a replay of stock prices.
    Demo,
}

impl Mode {
    /// The configuration as this mode has it: what a demo shows is no secret of this machine's users,
    /// so its dashboard shows the broker too, and a page that was opened as a file may join.
    fn settle(self, mut config: Config) -> Config {
        if self == Mode::Demo {
            config.admin.dashboard = true;
            let is_here = config.listen.public.ip().to_canonical().is_loopback();
            let files = "null".to_owned();
            if is_here && !config.websocket.origins.contains(&files) {
                config.websocket.origins.push(files);
            }
        }
        config
    }
}

/// Runs a broker until it is told to stop.
pub(super) fn run(args: &ConfigArgs, mode: Mode) -> ExitCode {
    // Before anything else is opened.
    let sockets = match Inherited::take() {
        Ok(sockets) => sockets,
        Err(error) => return super::fail(&error),
    };
    let given = flags(&sockets);
    let config = match args.load_with(given.clone()) {
        Ok(loaded) => mode.settle(loaded.config),
        Err(error) => return super::fail(&error),
    };
    let level = log::start(&config.log);
    let settings = Settings { args, given, mode, level };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve(&config, sockets, &settings)),
        Err(error) => super::fail(&error),
    }
}

/// An address that was bound by somebody else is judged like one that was asked for.
fn flags(sockets: &Inherited) -> Vec<Flag> {
    let flag = |(key, address): (_, SocketAddr)| {
        let value = address.to_string();
        Flag { name: "a socket that was handed over", key, value }
    };
    sockets.addresses().map(flag).collect()
}

/// Where the configuration comes from, and what of it is not the server's.
struct Settings<'a> {
    args: &'a ConfigArgs,
    /// What the sockets that were handed over say.
    given: Vec<Flag>,
    mode: Mode,
    level: Level,
}

impl Settings<'_> {
    /// Reads the configuration anew and puts it into force.
    async fn reload(&self, server: &mut Server) -> Result<Changes, BadReload> {
        systemd::tell(State::Reloading);
        let result = Box::pin(self.put(server)).await;
        server.note_reload(&result);
        match &result {
            Ok(Changes { changed, read_anew, needs_restart }) => {
                tracing::info!(
                    changed = changed.join(" "),
                    read_anew = read_anew.join(" "),
                    needs_restart = needs_restart.join(" "),
                    "the configuration was read anew"
                );
            }
            Err(error) => {
                tracing::error!(%error, "the configuration stays as it was");
            }
        }
        systemd::tell(State::Ready);
        result
    }

    async fn put(&self, server: &mut Server) -> Result<Changes, BadReload> {
        let loaded = self.args.load_with(self.given.clone());
        let loaded = loaded.map_err(|error| BadReload(error.to_string()))?;
        let config = self.mode.settle(loaded.config);
        let changes = server.reload(&config).await?;
        self.level.change(config.log.level);
        Ok(changes)
    }
}

async fn serve(config: &Config, sockets: Inherited, settings: &Settings<'_>) -> ExitCode {
    // Listened to before anything else, so that no signal is lost.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return super::fail(&error),
    };
    let panics = Panics::watch();
    let feeds = (settings.mode == Mode::Demo).then(|| Feeds::new(PathBuf::from("/proc")));
    let mut server = match Server::start_on(sockets, config, feeds) {
        Ok(server) => server,
        Err(error) => return super::fail(&error),
    };
    announce(server.addresses, config);
    if settings.mode == Mode::Demo {
        tracing::info!("open http://{}/ in a browser", server.addresses.public);
    }
    let mut pulse = server.pulse();
    tokio::spawn(systemd::watch(move || pulse.beats()));
    systemd::tell(State::Ready);
    let mut is_broken = false;
    loop {
        tokio::select! {
            () = panics.too_many() => {
                tracing::error!("stopping, as too many bugs have shown");
                is_broken = true;
                break;
            }
            told = signals.next() => match told {
                Told::Reload => drop(settings.reload(&mut server).await),
                Told::Stop(signal) => {
                    tracing::info!(signal, "stopping");
                    break;
                }
            },
            request = server.asked() => match request {
                // Whoever asked may have gone.
                Request::Reload(answer) => drop(answer.send(settings.reload(&mut server).await)),
                Request::Drain(answer) => {
                    answer.send(()).unwrap_or_default();
                    tracing::info!("stopping, as an operator asks");
                    break;
                }
            },
        }
    }
    systemd::tell(State::Stopping);
    tokio::select! {
        left = server.drain() => {
            let status = finish(left);
            if is_broken { Panics::status() } else { status }
        }
        signal = signals.stop() => {
            tracing::warn!(signal, "stopping at once");
            // Not by returning, which would wait for the shards' threads.
            std::process::exit(1)
        }
    }
}

fn announce(addresses: Addresses, config: &Config) {
    tracing::info!(address = %addresses.public, "listening for WebSocket and HTTP");
    if let Some(address) = addresses.ingress {
        tracing::info!(%address, "listening for TCP ingress");
    }
    if let Some(address) = addresses.admin {
        tracing::info!(%address, "listening for metrics and health");
    }
    if !config.auth.is_open() {
        let (keys, tokens) = (config.auth.keys.len(), config.auth.tokens.len());
        let certificates = config.auth.certificates.len();
        let anonymous = !config.auth.anonymous.grants().is_empty();
        tracing::info!(
            keys,
            jwks = config.auth.jwks,
            tokens,
            certificates,
            anonymous,
            "who may do what is configured"
        );
        if anonymous && !config.auth.has_proof() {
            tracing::warn!("nobody can show a token: everybody may do what auth.anonymous says");
        }
    } else if config.insecure {
        tracing::warn!("insecure: whoever reaches these addresses may publish and subscribe");
    } else {
        tracing::info!("whoever is on this machine may publish and subscribe");
    }
}

fn finish(left: usize) -> ExitCode {
    if left == 0 {
        tracing::info!("stopped");
        ExitCode::SUCCESS
    } else {
        tracing::warn!(connections = left, "stopped; connections were cut off");
        ExitCode::FAILURE
    }
}

/// What a signal is for.
enum Told {
    Stop(&'static str),
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// The next one that is to end the broker. Whatever it is read from does not matter any more.
    async fn stop(&mut self) -> &'static str {
        loop {
            if let Told::Stop(signal) = self.next().await {
                return signal;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_shows_itself_and_lets_files_in_only_where_nobody_else_can_reach_it() {
        let on = |address: &str, origins: &[&str]| {
            let mut config = Config::default();
            config.listen.public = address.parse().expect("an address");
            config.websocket.origins = origins.iter().map(ToString::to_string).collect();
            config
        };
        let cases: [(&str, &[&str], &[&str]); 5] = [
            ("127.0.0.1:7600", &[], &["null"]),
            ("[::1]:7600", &["https://a.example"], &["https://a.example", "null"]),
            ("127.0.0.1:7600", &["null"], &["null"]),
            ("0.0.0.0:7600", &[], &[]),
            ("192.0.2.1:7600", &[], &[]),
        ];
        for (address, given, expected) in cases {
            let config = on(address, given);
            assert_eq!(Mode::Serve.settle(config.clone()), config, "{address}");
            let demo = Mode::Demo.settle(config);
            assert!(demo.admin.dashboard);
            assert_eq!(demo.websocket.origins, expected, "{address} {given:?}");
        }
    }
}
