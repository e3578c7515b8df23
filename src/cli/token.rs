//! `fanfare token`: makes tokens, looks into them, and makes the hashes that a configuration holds.
//! # Invariants: secrets come from files, standard input or the environment, and are printed only
//! where that is what was asked for.
//! # Not here: what a broker takes (`auth`).

use super::error::CommandError;
use super::secret::{self, VARIABLE};
use super::settings::ConfigArgs;
use crate::auth::{Algorithm, Claims, Fault, Hash, Key, Signer, look_into, sign};
use crate::clock::Clock;
use crate::keys;
use crate::topics::name::TopicFilter;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use jiff::fmt::friendly::SpanParser;
use serde_json::{Value, json};
use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  fanfare token random > secret                          an API token, or a secret for HS256
  fanfare token hash secret                              what the configuration holds of it
  fanfare token mint --key secret --aud fanfare --sub alice --subscribe 'room.>'
  fanfare token inspect token --key secret               what it says, and whether it is valid";

/// What `fanfare token` does.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TokenCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Make a JWT
    Mint(MintArgs),
    /// Show what a token says, and whether a key or a configuration takes it
    Inspect(InspectArgs),
    /// Print the SHA-256 of an API token, for the configuration
    Hash {
        /// The file with the token; - or nothing reads standard input, or `$FANFARE_TOKEN`
        file: Option<PathBuf>,
    },
    /// Print 256 random bits: an API token, or a secret for HS256
    Random,
}

#[derive(Clone, Debug, Args)]
struct MintArgs {
    /// The file with the secret, or with the PEM of the private key; - reads standard input
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// What to sign with
    #[arg(long, default_value = "HS256", value_parser = parse_algorithm)]
    alg: Algorithm,
    /// Name the key, as the broker knows it
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
    /// Who it is about
    #[arg(long)]
    sub: String,
    /// Whom it is for: the broker's auth.audience
    #[arg(long)]
    aud: String,
    /// Who makes it: the broker's auth.issuer
    #[arg(long)]
    iss: Option<String>,
    /// Which one it is, so that it can be revoked [default: random]
    #[arg(long)]
    jti: Option<String>,
    /// How long it is valid, such as 10m or 8h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    ttl: Duration,
    /// A filter that it may subscribe to; may be repeated
    #[arg(long, value_name = "FILTER", value_parser = parse_filter)]
    subscribe: Vec<TopicFilter>,
    /// A filter that it may publish to; may be repeated
    #[arg(long, value_name = "FILTER", value_parser = parse_filter)]
    publish: Vec<TopicFilter>,
}

#[derive(Clone, Debug, Args)]
struct InspectArgs {
    /// The file with the token; - or nothing reads standard input, or `$FANFARE_TOKEN`
    file: Option<PathBuf>,
    /// Verify it with this secret or PEM of a public key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Ask this configuration [default: ./fanfare.toml, if it is there]
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    config: Option<PathBuf>,
}

fn parse_algorithm(text: &str) -> Result<Algorithm, String> {
    let names: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
    Algorithm::of(text).ok_or_else(|| format!("it is one of {}", names.join(", ")))
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = SpanParser::new().parse_unsigned_duration(text.trim());
    time.map_err(|_| "it is a time such as 10m or 8h".to_owned())
}

fn parse_filter(text: &str) -> Result<TopicFilter, String> {
    TopicFilter::parse(text).map_err(|refusal| refusal.to_string())
}

/// Does what is asked, and prints it.
pub(super) fn run(command: &TokenCommand) -> ExitCode {
    let text = match &command.action {
        Action::Mint(args) => mint(args),
        Action::Inspect(args) => inspect(args),
        Action::Hash { file } => read_token(file.as_deref()).and_then(|token| hash(&token)),
        Action::Random => random(),
    };
    match text {
        Ok(text) => super::say(&text),
        Err(error) => super::fail(&error),
    }
}

fn failed(name: &str, problem: impl Display) -> CommandError {
    CommandError::Input { name: name.to_owned(), problem: problem.to_string() }
}

fn mint(args: &MintArgs) -> Result<String, CommandError> {
    let name = args.key.display().to_string();
    let signer = Signer::of_file(args.alg, &secret::read(&args.key)?);
    let signer = signer.map_err(|bad| failed(&name, bad))?;
    let now = now_s();
    let id = args.jti.clone().map_or_else(draw::<12>, Ok)?;
    let filters = |filters: &[TopicFilter]| -> Vec<_> {
        filters.iter().map(|filter| filter.as_str().to_owned()).collect()
    };
    let mut claims = json!({
        "sub": args.sub,
        "aud": args.aud,
        "iat": now,
        "exp": now.saturating_add(args.ttl.as_secs()),
        "jti": id,
        "fanfare": {"subscribe": filters(&args.subscribe), "publish": filters(&args.publish)},
    });
    if let (Some(iss), Value::Object(claims)) = (&args.iss, &mut claims) {
        claims.insert("iss".to_owned(), iss.as_str().into());
    }
    let token = sign(&signer, args.kid.as_deref(), &claims).map_err(|bad| failed(&name, bad))?;
    Ok(format!("{token}\n"))
}

fn inspect(args: &InspectArgs) -> Result<String, CommandError> {
    let raw = read_token(args.file.as_deref())?;
    let bad = |fault: Fault| failed("the token", fault);
    if !raw.contains('.') {
        let verdict = judge(&raw, args)?;
        return Ok(format!("API token, sha256 {}\n{verdict}\n", Hash::of(&raw)));
    }
    let token = look_into(&raw).map_err(bad)?;
    let claims = token.claims().map_err(bad)?;
    let verdict = match &args.key {
        None => judge(&raw, args)?,
        Some(path) => {
            let name = path.display().to_string();
            let algorithm = Algorithm::of(&token.header.alg)
                .ok_or_else(|| failed("the token", "its `alg` is not known here"))?;
            let key = Key::of_file(None, algorithm, &secret::read(path)?);
            match token.verify(&key.map_err(|bad| failed(&name, bad))?) {
                Ok(claims) => judge_time(&claims),
                Err(fault) => format!("not valid: {fault}"),
            }
        }
    };
    Ok(format!("{}\n{}{verdict}\n", token.header.describe(), describe(&claims)?))
}

/// What a configuration says of a token.
fn judge(token: &str, args: &InspectArgs) -> Result<String, CommandError> {
    let settings = ConfigArgs { config: args.config.clone(), ..ConfigArgs::default() };
    let loaded = settings.load().map_err(|error| failed("the configuration", error))?;
    if loaded.config.auth.is_open() {
        return Ok("not verified: neither --key nor a configuration says how".to_owned());
    }
    let authority = keys::authority(&loaded.config.auth);
    let authority = authority.map_err(|error| failed("a key", error))?;
    Ok(match authority.authenticate(token, now_s()) {
        Ok(identity) => format!("valid: {}", identity.subject),
        Err(fault) => format!("not valid: {fault}"),
    })
}

fn judge_time(claims: &Claims) -> String {
    let now = now_s();
    if claims.exp.0 <= now {
        return format!("not valid: it has expired {} seconds ago", now - claims.exp.0);
    }
    if let Some(nbf) = claims.nbf.filter(|nbf| nbf.0 > now) {
        return format!("not valid: it begins to count in {} seconds", nbf.0 - now);
    }
    format!("valid for {} seconds, for whoever expects this `aud`", claims.exp.0 - now)
}

fn describe(claims: &Claims) -> Result<String, CommandError> {
    let grants = claims.grants().map_err(|fault| failed("the token", fault))?;
    let list = |filters: &crate::auth::Filters| {
        let names: Vec<_> = filters.iter().map(ToString::to_string).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let mut text = format!("sub {:?}\naud {:?}\nexp {}\n", claims.sub, claims.aud, claims.exp.0);
    for (name, value) in [("iss", &claims.iss), ("jti", &claims.jti)] {
        if let Some(value) = value {
            writeln!(text, "{name} {value:?}").unwrap_or_default();
        }
    }
    let (subscribe, publish) = (list(&grants.subscribe), list(&grants.publish));
    // Writing to a string does not fail.
    writeln!(text, "may subscribe to {subscribe}\nmay publish to {publish}").unwrap_or_default();
    Ok(text)
}

/// Least characters of an API token: what is shorter could be guessed from its hash.
const TOKEN_CHARACTERS_MIN: usize = 32;

fn hash(token: &str) -> Result<String, CommandError> {
    if token.len() < TOKEN_CHARACTERS_MIN {
        let problem = format!(
            "it is {} characters, the least is {TOKEN_CHARACTERS_MIN}: `fanfare token random` \
             makes one that cannot be guessed",
            token.len()
        );
        return Err(failed("the token", problem));
    }
    if token.contains('.') {
        return Err(failed("the token", "it has a dot, as a JWT has and an API token has not"));
    }
    Ok(format!("{}\n", Hash::of(token)))
}

fn random() -> Result<String, CommandError> {
    Ok(format!("{}\n", draw::<32>()?))
}

fn draw<const BYTES: usize>() -> Result<String, CommandError> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| failed("the system's randomness", error))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn read_token(file: Option<&Path>) -> Result<String, CommandError> {
    let text = match (file, std::env::var(VARIABLE)) {
        (Some(file), _) => secret::read_text(file)?,
        (None, Ok(token)) => token.trim().to_owned(),
        (None, Err(_)) => secret::read_text(Path::new("-"))?,
    };
    if text.is_empty() { Err(failed("the token", "it is empty")) } else { Ok(text) }
}

fn now_s() -> u64 {
    Clock::start().now().wall_ms / 1000
}
