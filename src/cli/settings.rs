//! The settings of a broker that have a flag of their own.
//! # Invariants: a value stays text here, because the configuration reads it in the same way
//! wherever it comes from, and says the same words when it is wrong.
//! # Not here: what the settings mean (`config`).

use super::args::parse_topic;
use crate::config::{ConfigError, Flag, Loaded, Sources, load};
use crate::topics::name::TopicName;
use clap::Args;
use std::path::PathBuf;

/// The settings that have a flag of their own.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file [default: ./fanfare.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// WebSocket, publish API and dashboard [default: 127.0.0.1:7600]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// TCP ingress, or off [default: 127.0.0.1:7601]
    #[arg(long, value_name = "ADDR|off")]
    pub ingress: Option<String>,
    /// Metrics and health, or off [default: 127.0.0.1:7602]
    #[arg(long, value_name = "ADDR|off")]
    pub admin: Option<String>,
    /// Threads that own connections [default: one per processor]
    #[arg(long, value_name = "N")]
    pub shards: Option<String>,
    /// Serve other machines although nobody has to prove who they are
    #[arg(long)]
    pub insecure: bool,
    /// auto, text or json [default: auto: text on a terminal, json elsewhere]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl ConfigArgs {
    /// The settings that were given.
    pub fn flags(&self) -> Vec<Flag> {
        let insecure = self.insecure.then(|| "true".to_owned());
        let flags = [
            ("--listen", "listen.public", &self.listen),
            ("--ingress", "listen.ingress", &self.ingress),
            ("--admin", "listen.admin", &self.admin),
            ("--shards", "shards", &self.shards),
            ("--insecure", "insecure", &insecure),
            ("--log-format", "log.format", &self.log_format),
            ("--log-level", "log.level", &self.log_level),
        ];
        let given = flags.into_iter().filter_map(|(name, key, value)| {
            let value = value.clone()?;
            Some(Flag { name, key, value })
        });
        given.collect()
    }

    /// The configuration of this process: defaults, file, variables, and these flags.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        self.load_with(Vec::new())
    }

    /// The same under these, which beat all others.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn load_with(&self, stronger: Vec<Flag>) -> Result<Loaded, ConfigError> {
        let flags = self.flags().into_iter().chain(stronger).collect();
        load(Sources::gather(self.config.as_deref(), flags)?)
    }
}

/// What `fanfare check` is told.
#[derive(Clone, Debug, Default, Args)]
pub struct CheckArgs {
    /// The settings of the broker that is meant.
    #[command(flatten)]
    pub settings: ConfigArgs,
    /// Tell which rule this topic has and what it means for it; may be repeated
    #[arg(long = "topic", value_name = "NAME", value_parser = parse_topic)]
    pub topics: Vec<TopicName>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::config::{Listen, Source};
    use clap::CommandFactory;

    fn read(line: &[&str]) -> Command {
        let line = std::iter::once("fanfare").chain(line.iter().copied());
        Cli::read(line).expect("a sound line").command
    }

    #[test]
    fn help_tells_the_real_defaults() {
        let mut command = Cli::command();
        let serve = command.find_subcommand_mut("serve").expect("a subcommand");
        let help = serve.render_help().to_string();
        let Listen { public, ingress, admin, .. } = Listen::default();
        for address in [Some(public), ingress, admin].into_iter().flatten() {
            assert!(help.contains(&format!("[default: {address}]")), "{address}");
        }
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        let line = [
            "serve",
            "--listen",
            "127.0.0.1:1",
            "--ingress",
            "off",
            "--admin",
            "[::1]:2",
            "--shards",
            "3",
            "--insecure",
            "--log-format",
            "json",
            "--log-level",
            "debug",
        ];
        let Command::Serve(args) = read(&line) else {
            panic!("not serve");
        };
        let flags = args.flags();
        let loaded = load(Sources { flags: flags.clone(), ..Sources::default() }).expect("sound");
        let given = loaded.settings.into_iter().filter_map(|setting| match setting.source {
            Source::Flag(name) => Some(format!("{name} {} {}", setting.key, setting.value)),
            _ => None,
        });
        let mut given: Vec<_> = given.collect();
        let mut expected: Vec<_> =
            flags.iter().map(|flag| format!("{} {} {}", flag.name, flag.key, flag.value)).collect();
        given.sort();
        expected.sort();
        assert_eq!(given, expected);
        let typed = line.iter().filter(|word| word.starts_with("--")).count();
        assert_eq!(expected.len(), typed);
    }

    #[test]
    fn a_flag_that_is_not_given_sets_nothing() {
        let Command::Demo(args) = read(&["demo"]) else {
            panic!("not demo");
        };
        assert_eq!(args.flags(), []);
    }
}
