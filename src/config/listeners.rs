//! Whether the listeners may be opened as they are configured: nothing that strangers can reach is
//! open to all or in plain text unless somebody has said so.
//! # Invariants: every refusal says how to mend it, in one sentence.
//! # Not here: whether files can be read and fit together (`tls`).

use super::bounds::Fault;
use super::{Config, Tls};
use std::net::SocketAddr;

/// One of the places to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listener {
    Public,
    Ingress,
    Admin,
}

impl Listener {
    const ALL: [Listener; 3] = [Listener::Public, Listener::Ingress, Listener::Admin];

    const fn key(self) -> &'static str {
        match self {
            Listener::Public => "listen.public",
            Listener::Ingress => "listen.ingress",
            Listener::Admin => "listen.admin",
        }
    }

    fn address(self, config: &Config) -> Option<SocketAddr> {
        match self {
            Listener::Public => Some(config.listen.public),
            Listener::Ingress => config.listen.ingress,
            Listener::Admin => config.listen.admin,
        }
    }

    /// Whether it speaks TLS.
    fn is_encrypted(self, tls: &Tls) -> bool {
        let wanted = match self {
            Listener::Public => tls.public,
            Listener::Ingress => tls.ingress,
            Listener::Admin => tls.admin,
        };
        wanted && tls.certificate.is_some()
    }

    /// Whether whoever connects has to prove who they are.
    fn is_guarded(self, config: &Config) -> bool {
        let by_token = self != Listener::Admin && config.auth.has_proof();
        let has_ca = config.tls.client_ca.is_some();
        by_token || self != Listener::Public && self.is_encrypted(&config.tls) && has_ca
    }
}

/// Whether the listeners may be opened.
pub(super) fn check(config: &Config) -> Result<(), Fault> {
    check_files(&config.tls)?;
    check_proxies(config)?;
    check_certificates(config)?;
    check_dashboard(config)?;
    for listener in Listener::ALL {
        let Some(address) = listener.address(config) else { continue };
        if !config.insecure && !is_loopback(address) {
            if !listener.is_guarded(config) {
                return Err(unguarded(listener, address));
            }
            check_secrecy(listener, address, config)?;
        }
    }
    check_distinct(config)
}

fn fault(keys: &[&str], text: String) -> Fault {
    Fault { keys: keys.iter().map(|key| (*key).to_owned()).collect(), text }
}

/// A certificate needs its key, and a key its certificate.
fn check_files(tls: &Tls) -> Result<(), Fault> {
    let (certificate, key) = ("tls.certificate", "tls.key");
    let (present, missing) = match (&tls.certificate, &tls.key, &tls.client_ca) {
        (Some(_), None, _) => (certificate, key),
        (None, Some(_), _) => (key, certificate),
        (None, None, Some(_)) => ("tls.client_ca", certificate),
        _ => return Ok(()),
    };
    let text = format!(
        "`{present}` is set, but `{missing}` is not, so nothing can be encrypted: name the PEM \
         files of both `{certificate}` and `{key}`"
    );
    Err(fault(&[present, missing], text))
}

fn check_proxies(config: &Config) -> Result<(), Fault> {
    let listen = &config.listen;
    if !listen.proxy_protocol || !listen.trusted_proxies.is_empty() {
        return Ok(());
    }
    let (key, other) = ("listen.proxy_protocol", "listen.trusted_proxies");
    let text = format!(
        "`{key}` is true, but `{other}` is empty, so nobody could connect: name the addresses of \
         your proxies there"
    );
    Err(fault(&[key, other], text))
}

/// Not every proxy says that it is one, and then all its clients count as this machine.
fn check_dashboard(config: &Config) -> Result<(), Fault> {
    let admin = &config.admin;
    if !admin.dashboard || admin.token.is_some() || config.insecure {
        return Ok(());
    }
    let (key, other) = ("admin.dashboard", "admin.token");
    let text = format!(
        "`{key}` is true, but `{other}` is off, so whoever comes through a proxy on this machine \
         might see who is connected: set `{other}` (`fanfare token hash` makes one) or, to allow \
         it, set `insecure = true` or pass --insecure"
    );
    Err(fault(&[key, other], text))
}

/// Names of certificates count only where somebody shows one.
fn check_certificates(config: &Config) -> Result<(), Fault> {
    let is_shown = config.listen.ingress.is_some()
        && Listener::Ingress.is_encrypted(&config.tls)
        && config.tls.client_ca.is_some();
    if config.auth.certificates.is_empty() || is_shown {
        return Ok(());
    }
    let (key, other) = ("auth.certificates", "tls.client_ca");
    let text = format!(
        "`{key}` names some, but nobody shows one: the ingress must listen, speak TLS by \
         `tls.certificate` and `tls.ingress`, and demand certificates by `{other}`"
    );
    Err(fault(&[key, other], text))
}

fn unguarded(listener: Listener, address: SocketAddr) -> Fault {
    let key = listener.key();
    let other_way = match listener {
        Listener::Public => "",
        Listener::Ingress | Listener::Admin => {
            ", demand certificates of clients by `tls.client_ca`"
        }
    };
    let text = format!(
        "`{key}` is {address}, which other machines can reach without proving who they are: \
         listen on 127.0.0.1{other_way} or, to allow it, set `insecure = true` or pass --insecure"
    );
    fault(&[key], text)
}

/// What is said on a listener must not be readable on the way, unless a proxy takes care of that.
fn check_secrecy(listener: Listener, address: SocketAddr, config: &Config) -> Result<(), Fault> {
    let is_behind_proxy = listener == Listener::Public && !config.listen.trusted_proxies.is_empty();
    if listener.is_encrypted(&config.tls) || is_behind_proxy {
        return Ok(());
    }
    let key = listener.key();
    let text = format!(
        "`{key}` is {address}, and what is said there can be read on the way: set \
         `tls.certificate` and `tls.key`, or name the proxies that encrypt in \
         `listen.trusted_proxies`, or, to allow it, set `insecure = true` or pass --insecure"
    );
    Err(fault(&[key], text))
}

fn check_distinct(config: &Config) -> Result<(), Fault> {
    let addresses = Listener::ALL.map(|it| Some((it.key(), it.address(config)?)));
    for (index, (key, address)) in addresses.into_iter().flatten().enumerate() {
        let mut earlier = addresses.into_iter().flatten().take(index);
        if let Some((other, _)) =
            earlier.find(|(_, other)| *other == address && address.port() != 0)
        {
            let text = format!("`{key}` is {address}, and so is `{other}`");
            return Err(fault(&[key, other], text));
        }
    }
    Ok(())
}

/// Whether only this machine can connect; `::ffff:127.0.0.1` is 127.0.0.1 in other clothes.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use crate::config::words::file;

    const CERTIFICATE: &str = "tls.certificate = 'c.pem'\ntls.key = 'k.pem'\n";

    fn check(text: &str) -> Result<(), String> {
        load(file(text)).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_dashboard_that_shows_the_broker_needs_a_token_unless_that_is_allowed() {
        let refused = check("admin.dashboard = true").unwrap_err();
        assert!(
            refused.contains("`admin.dashboard` is true, but `admin.token` is off"),
            "{refused}"
        );
        let token = "0".repeat(64);
        assert_eq!(check(&format!("admin.dashboard = true\nadmin.token = '{token}'")), Ok(()));
        assert_eq!(check("insecure = true\nadmin.dashboard = true"), Ok(()));
    }

    #[test]
    fn what_strangers_can_reach_is_refused_unless_it_is_guarded_or_allowed() {
        let mutual = format!("{CERTIFICATE}tls.client_ca = 'ca.pem'\n");
        let admin = format!("{mutual}tls.admin = true\n");
        let cases = [
            ("", "listen.public = '0.0.0.0:0'", false),
            ("", "listen.ingress = '0.0.0.0:0'", false),
            ("", "listen.admin = '[::]:0'", false),
            ("insecure = true\n", "listen.public = '0.0.0.0:0'", true),
            ("insecure = true\n", "listen.admin = '[::]:0'", true),
            // A certificate of ours says who we are, not who they are.
            (CERTIFICATE, "listen.public = '0.0.0.0:0'", false),
            (CERTIFICATE, "listen.ingress = '0.0.0.0:0'", false),
            (&mutual, "listen.ingress = '0.0.0.0:0'", true),
            (&mutual, "tls.ingress = false\nlisten.ingress = '0.0.0.0:0'", false),
            (&mutual, "listen.public = '0.0.0.0:0'", false),
            (&mutual, "listen.admin = '0.0.0.0:0'", false),
            (&admin, "listen.admin = '0.0.0.0:0'", true),
            ("", "listen.public = '127.0.0.9:0'\nlisten.admin = '[::1]:0'", true),
            ("", "listen.public = '[::ffff:127.0.0.1]:0'", true),
        ];
        for (first, second, expected) in cases {
            let checked = check(&format!("{first}{second}"));
            assert_eq!(checked.is_ok(), expected, "{first}{second}: {checked:?}");
        }
    }

    #[test]
    fn names_of_certificates_count_only_where_one_is_demanded() {
        let mutual = format!("{CERTIFICATE}tls.client_ca = 'ca.pem'\n");
        let cases = [
            ("", "", false),
            (CERTIFICATE, "", false),
            (&mutual, "", true),
            (&mutual, "tls.ingress = false\n", false),
            (&mutual, "listen.ingress = 'off'\n", false),
        ];
        for (first, second, expected) in cases {
            let checked = check(&format!("{first}{second}auth.certificates = [{{ name = 'x' }}]"));
            assert_eq!(checked.is_ok(), expected, "{first}{second}: {checked:?}");
            let words = "`auth.certificates` names some, but nobody shows one";
            assert!(checked.err().is_none_or(|error| error.contains(words)));
        }
    }

    #[test]
    fn plain_text_is_for_this_machine_and_behind_proxies() {
        let address: SocketAddr = "192.0.2.1:7600".parse().expect("an address");
        let cases = [
            ("", Listener::Public, false),
            ("", Listener::Ingress, false),
            ("listen.trusted_proxies = ['192.0.2.0/24']", Listener::Public, true),
            ("listen.trusted_proxies = ['192.0.2.0/24']", Listener::Ingress, false),
            (CERTIFICATE, Listener::Public, true),
            (CERTIFICATE, Listener::Ingress, true),
            (CERTIFICATE, Listener::Admin, false),
        ];
        for (text, listener, expected) in cases {
            let config = load(file(text)).expect("sound").config;
            let checked = check_secrecy(listener, address, &config);
            assert_eq!(checked.is_ok(), expected, "{text} {listener:?}");
        }
    }

    #[test]
    fn half_of_something_is_refused_with_the_other_half() {
        let cases = [
            ("tls.certificate = 'c.pem'", "`tls.certificate` is set, but `tls.key` is not"),
            ("tls.key = 'k.pem'", "`tls.key` is set, but `tls.certificate` is not"),
            ("tls.client_ca = 'ca.pem'", "`tls.client_ca` is set, but `tls.certificate` is not"),
            ("listen.proxy_protocol = true", "`listen.trusted_proxies` is empty"),
        ];
        for (text, words) in cases {
            let refused = check(text).expect_err("must be refused");
            assert!(refused.starts_with("fanfare.toml: ") && refused.contains(words), "{refused}");
        }
    }
}
