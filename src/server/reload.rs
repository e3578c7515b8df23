//! Puts another configuration into force while the broker runs.
//! # Invariants: everything that can fail comes before the first change, so a configuration is put
//! into force wholly or not at all; a connection is served to its end by what it began with.
//! # Not here: which settings may change (`config::live`), reading them (`cli`).

use super::site::{access, site};
use super::{Server, gate_options, limits, shard_options};
use crate::auth::Authority;
use crate::config::{Config, live};
use crate::control::{BadReload, Changes};
use crate::http::Site;
use crate::keys::{self, KeyError, KeySet};
use crate::session::Broker;
use crate::tls::Current;
use parking_lot::Mutex;
use std::sync::Arc;

/// Something that is replaced whole.
#[derive(Debug)]
pub(super) struct Slot<T>(Mutex<Arc<T>>);

impl<T> Slot<T> {
    pub(super) fn new(value: Arc<T>) -> Slot<T> {
        Slot(Mutex::new(value))
    }

    /// What is in force.
    pub(super) fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.lock())
    }

    fn put(&self, value: Arc<T>) {
        *self.0.lock() = value;
    }
}

/// All that is new, sound and not yet in force.
struct Prepared {
    config: Config,
    authority: Authority,
    key_set: Option<KeySet>,
    credentials: Option<Current>,
    site: Site,
}

impl Server {
    /// Puts another configuration into force, as far as that may change while the broker runs.
    ///
    /// # Errors
    /// [`BadReload`], and then nothing has changed.
    pub async fn reload(&mut self, config: &Config) -> Result<Changes, BadReload> {
        let (config, changes) = live::adopt(&self.config, config)?;
        let prepared = self.prepare(config)?;
        self.put(prepared).await;
        Ok(changes)
    }

    /// Counts what came of an attempt to read the configuration anew.
    pub fn note_reload<T, E>(&self, result: &Result<T, E>) {
        self.counters.reloads.of(result).increment();
        self.counters.last_reload_s.of(result).set(self.broker.clock.now().wall_ms / 1000);
    }

    /// Reads every file.
    fn prepare(&self, config: Config) -> Result<Prepared, BadReload> {
        let bad_key = |error: KeyError| BadReload(error.to_string());
        let authority = keys::authority(&config.auth).map_err(bad_key)?;
        let key_set = KeySet::of(&config.auth).map_err(bad_key)?;
        let paths = super::paths(&config.tls).filter(|_| self.credentials.is_some());
        let credentials = paths.map(Current::read).transpose();
        let credentials =
            credentials.map_err(|error| BadReload(format!("cannot speak TLS: {error}")))?;
        let engine = self.broker.engine.clone();
        let broker = Broker {
            engine,
            guard: Arc::clone(&self.broker.guard),
            limits: limits(&config),
            ping_ms: self.broker.ping_ms,
            clock: self.broker.clock,
            budget: Arc::clone(&self.broker.budget),
        };
        let site = site(Arc::new(broker), Arc::clone(&self.gate), &self.window, &config);
        let site = site.map_err(|error| BadReload(error.to_string()))?;
        Ok(Prepared { config, authority, key_set, credentials, site })
    }

    /// Nothing here fails.
    async fn put(&mut self, new: Prepared) {
        let Prepared { config, authority, key_set, credentials, site } = new;
        if let (Some(credentials), Some(current)) = (&self.credentials, credentials) {
            credentials.put(current);
        }
        self.note_certificate();
        self.broker.engine.registry().replace_rules(&config.topics.to_rules());
        self.gate.change(gate_options(&config));
        self.site.put(Arc::new(site));
        self.ops.admin.lock.change(config.admin.token);
        self.window.change(access(&config));
        self.ops.page.change(config.admin.metrics_age);
        // What was fetched before counts on until there is something else.
        if key_set.as_ref().is_some_and(KeySet::is_fetched) {
            self.broker.guard.replace(&authority);
        } else {
            self.broker.guard.replace_whole(authority);
        }
        self.follow_keys(key_set);
        let options = shard_options(&config);
        for shard in self.shards.iter() {
            shard
                .tell(move |shard| {
                    shard.change_options(options);
                    shard.review();
                })
                .await;
        }
        self.config = config;
    }

    /// Follows a set of keys that somebody else publishes, and none that was followed before.
    pub(super) fn follow_keys(&mut self, key_set: Option<KeySet>) {
        let (guard, counters) = (Arc::clone(&self.broker.guard), Arc::clone(&self.counters));
        let task = key_set.map(|set| tokio::spawn(set.follow(guard, counters)));
        if let Some(before) = std::mem::replace(&mut self.following, task) {
            before.abort();
        }
    }
}
