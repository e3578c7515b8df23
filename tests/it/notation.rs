//! How the tables of `corpus` write bytes, frames and what is said; their first lines explain it.
//! # Not here: what is done with them.

use crate::socket::{FIN, LENGTH_16, LENGTH_64, MASKED, frame};

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// What is sent.
pub(crate) enum Sent {
    /// A text in one frame, as a client should write it.
    Text(Vec<u8>),
    /// Anything else, in bytes.
    Other(Vec<u8>),
}

impl Sent {
    /// The stream of all of it.
    pub(crate) fn bytes(all: &[Sent]) -> Vec<u8> {
        let bytes = |sent: &Sent| match sent {
            Sent::Text(payload) => frame(FIN | opcode("text"), payload),
            Sent::Other(bytes) => bytes.clone(),
        };
        all.iter().flat_map(bytes).collect()
    }
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A message or a control frame: its type and its payload.
    Message(&'static str, Vec<u8>),
    /// A close code and why.
    Refused(u16, String),
}

impl Said {
    /// Whether it is a message or control frame of this type.
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self, Said::Message(own, _) if *own == name)
    }

    /// Whether nothing can be said behind it.
    pub(crate) fn is_an_end(&self) -> bool {
        self.is("close") || matches!(self, Said::Refused(..))
    }

    /// Reads the column of what is said.
    pub(crate) fn parse(column: &str) -> Vec<Said> {
        let mut said = Vec::new();
        let mut rest = if column == "-" { "" } else { column };
        while !rest.is_empty() {
            if let Some((code, why)) = rest.split_once(' ')
                && let Ok(code) = code.parse()
            {
                said.push(Said::Refused(code, why.to_owned()));
                break;
            }
            let (token, later) = Token::take(rest);
            let name = token.type_name();
            let message = Said::Message(name, token.payload());
            said.extend((0..token.times()).map(|_| message.clone()));
            rest = later;
        }
        said
    }
}

/// Reads the column of what is sent.
pub(crate) fn frames(column: &str) -> Vec<Sent> {
    let mut sent = Vec::new();
    let mut rest = column;
    while !rest.is_empty() {
        let (token, later) = Token::take(rest);
        sent.push(token.spell());
        rest = later;
    }
    sent
}

/// `name.flag.flag=value(payload)`, where flags may also stand behind the payload.
struct Token<'c> {
    name: &'c str,
    flags: Vec<&'c str>,
    inside: &'c str,
}

impl<'c> Token<'c> {
    /// The first of a column, and what follows.
    fn take(column: &'c str) -> (Token<'c>, &'c str) {
        let mut quoted = false;
        let mut depth = 0;
        let end = column.find(|c| {
            match c {
                '\'' => quoted = !quoted,
                '(' if !quoted => depth += 1,
                ')' if !quoted => depth -= 1,
                _ => {}
            }
            c == ' ' && depth == 0
        });
        let (token, rest) = column.split_at(end.unwrap_or(column.len()));
        let (before, inside, behind) = match (token.find('('), token.rfind(')')) {
            (Some(open), Some(close)) => {
                (&token[..open], &token[open + 1..close], &token[close + 1..])
            }
            _ => (token, "", ""),
        };
        let mut words = before.split('.').chain(behind.split('.')).filter(|word| !word.is_empty());
        let name = words.next().expect("a type");
        (Token { name, flags: words.collect(), inside }, rest.trim_start())
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }

    fn value(&self, flag: &str) -> Option<u64> {
        let values = self.flags.iter().filter_map(|word| word.split_once('='));
        let (_, value) = values.into_iter().find(|(name, _)| *name == flag)?;
        Some(value.parse().expect("a number"))
    }

    fn times(&self) -> u64 {
        self.value("times").unwrap_or(1)
    }

    fn type_name(&self) -> &'static str {
        let names = ["text", "binary", "ping", "pong", "close"];
        names.into_iter().find(|name| *name == self.name).expect("a type of message")
    }

    fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(code) = self.value("code") {
            bytes.extend(u16::try_from(code).expect("a code").to_be_bytes());
        }
        bytes.extend(payload(self.inside));
        bytes
    }

    fn spell(&self) -> Sent {
        if self.name == "raw" {
            return Sent::Other(payload(self.inside));
        }
        let payload = self.payload();
        if self.name == "text" && self.flags.is_empty() {
            return Sent::Text(payload);
        }
        let mut first = opcode(self.name);
        let bits = [("rsv1", 0x40), ("rsv2", 0x20), ("rsv3", 0x10)];
        first |= bits.iter().filter(|(flag, _)| self.has(flag)).fold(0, |all, (_, bit)| all | bit);
        if !self.has("open") {
            first |= FIN;
        }
        let length = self.value("claims").unwrap_or(payload.len() as u64);
        let (short, long) = match length {
            _ if self.has("len64") => (LENGTH_64, length.to_be_bytes().to_vec()),
            _ if self.has("len16") => (LENGTH_16, length.to_be_bytes()[6..].to_vec()),
            0..126 => (length.to_be_bytes()[7], Vec::new()),
            126..=0xFFFF => (LENGTH_16, length.to_be_bytes()[6..].to_vec()),
            _ => (LENGTH_64, length.to_be_bytes().to_vec()),
        };
        let mut bytes = vec![first, short];
        bytes.extend(long);
        if self.has("bare") {
            bytes.extend(payload);
        } else {
            bytes[1] |= MASKED;
            bytes.extend(MASK);
            bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
        let times = usize::try_from(self.times()).expect("not so often");
        Sent::Other(bytes.repeat(times))
    }
}

fn opcode(name: &str) -> u8 {
    match name {
        "more" => 0x0,
        "text" => 0x1,
        "binary" => 0x2,
        "close" => 0x8,
        "ping" => 0x9,
        "pong" => 0xA,
        other => {
            let digit = other.strip_prefix("op").expect("a type of frame");
            u8::from_str_radix(digit, 16).expect("an opcode")
        }
    }
}

/// Texts in quotes and hex, each perhaps so many times.
fn payload(mut inside: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !inside.is_empty() {
        let (piece, rest) = if let Some(text) = inside.strip_prefix('\'') {
            let (text, rest) = text.split_once('\'').expect("a quote that ends");
            (text.as_bytes().to_vec(), rest)
        } else {
            let (digits, rest) = inside.split_at(inside.find([' ', '*']).unwrap_or(inside.len()));
            (hex(digits), rest)
        };
        let (times, rest) = match rest.strip_prefix('*') {
            Some(rest) => {
                let (times, rest) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
                (times.parse().expect("how often"), rest)
            }
            None => (1, rest),
        };
        bytes.extend(piece.repeat(times));
        inside = rest.trim_start();
    }
    bytes
}

fn hex(digits: &str) -> Vec<u8> {
    assert_eq!(digits.len() % 2, 0, "half a byte: {digits}");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Text with `\r`, `\n`, `\t`, `\0` and `\xHH`; `{text*N}` is a text so many times.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (now, taken) = match c {
            '\\' => escape(&rest[1..]),
            '{' => {
                let (inside, _) = rest[1..].split_once('}').expect("a brace that ends");
                let (text, times) = inside.split_once('*').expect("how often");
                (unescape(text).repeat(times.parse().expect("a number")), inside.len() + 2)
            }
            c => (c.to_string().into_bytes(), c.len_utf8()),
        };
        bytes.extend(now);
        rest = &rest[taken..];
    }
    bytes
}

/// What stands behind a backslash, and how long the whole is.
fn escape(rest: &str) -> (Vec<u8>, usize) {
    match rest.as_bytes() {
        [b'r', ..] => (vec![b'\r'], 2),
        [b'n', ..] => (vec![b'\n'], 2),
        [b't', ..] => (vec![b'\t'], 2),
        [b'0', ..] => (vec![0], 2),
        [b'x', ..] => (hex(&rest[1..3]), 4),
        _ => panic!("there is no escape \\{rest}"),
    }
}
