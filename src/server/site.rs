//! The public side as the configuration says it is.
//! # Not here: serving it (`http`).

use crate::config::Config;
use crate::http::Site;
use crate::http::admin::{Access, Window};
use crate::listen::Gate;
use crate::session::Broker;
use crate::ws::extensions::Compression;
use crate::ws::handshake::Policy;
use crate::ws::origin::{AllowedOrigin, OriginError};
use std::sync::Arc;

/// What the public side serves, and to whom.
pub(super) fn site(
    broker: Arc<Broker>,
    gate: Arc<Gate>,
    window: &Arc<Window>,
    config: &Config,
) -> Result<Site, OriginError> {
    let origins = config.websocket.origins.iter().map(|raw| AllowedOrigin::parse(raw));
    let origins = origins.collect::<Result<Vec<_>, _>>()?;
    let compression =
        if config.websocket.compression { Compression::Deflate } else { Compression::None };
    let (listen, own) = (&config.listen, config.listen.public.ip());
    let is_alone = own.to_canonical().is_loopback() && listen.trusted_proxies.is_empty();
    Ok(Site {
        broker,
        policy: Policy { origins, compression },
        request_timeout: config.limits.handshake_timeout,
        write_stall_max: config.limits.write_stall_max,
        gate,
        window: Arc::clone(window),
        alone: is_alone.then_some(own),
    })
}

/// Who sees on the public side what the admin API tells.
pub(super) fn access(config: &Config) -> Access {
    match config.admin.token {
        _ if !config.admin.dashboard => Access::Shut,
        Some(hash) => Access::Token(hash),
        None => Access::ThisMachine,
    }
}
