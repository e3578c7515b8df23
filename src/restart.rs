//! The file in which a broker that restarts as planned leaves its topics to its successor.
//! # Invariants: a file is complete and unchanged, or nothing of it is used; it is used once, and is
//! gone before it is; only a broker that has ended well leaves one. So an epoch never goes on after a
//! crash.
//! # Not here: what is kept of a topic (`topics::kept`), when (`server`).

use crate::clock::Now;
use crate::topics::kept::{Kept, KeptAnswer, KeptMessage};
use crate::topics::message::{Offset, Payload};
use crate::topics::name::TopicName;
use crate::topics::topic::Heard;
use bytes::Bytes;
use prost::Message as _;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a file begins with; the last digit is the version of what follows.
const MAGIC: &[u8; 16] = b"fanfare restart1";

/// Bytes of one record. The largest is a topic with all of its history.
const RECORD_BYTES_MAX: usize = 1 << 30;

/// The longest time by which a successor's clock is put forward.
const PAUSE_MAX: Duration = Duration::from_hours(24 * 365);

/// What a broker left.
#[derive(Debug)]
pub struct Estate {
    /// How long it and its predecessors had been up, and what has passed since.
    pub uptime: Duration,
    /// Its topics.
    pub topics: Vec<Kept>,
}

/// How far writing may go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the file.
    pub bytes_max: u64,
    /// Up to this uptime.
    pub until: Duration,
}

/// Why there is nothing to begin with, or nothing is left.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// The system's words.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("it is not whole, or was changed: {0}")]
    Corrupt(&'static str),
    /// There is too much to keep.
    #[error("it is more than {0} bytes")]
    TooLarge(u64),
    /// It takes too long.
    #[error("it takes too long")]
    TooLate,
}

/// Writes what is to be left. There is a file only if all went well. Returns how many topics are in it.
///
/// # Errors
/// [`RestartError`].
pub fn leave(
    path: &Path,
    topics: impl Iterator<Item = Kept>,
    bounds: Bounds,
    now: impl Fn() -> Now,
) -> Result<u64, RestartError> {
    let beside = beside(path);
    remove(&beside)?;
    let written = write(&beside, topics, bounds, now).and_then(|count| {
        std::fs::rename(&beside, path)?;
        sync_folder(path)?;
        Ok(count)
    });
    if written.is_err() {
        // The first error tells more than that of tidying up.
        remove(&beside).unwrap_or_default();
    }
    written
}

/// Takes what was left, if anything was. The file is gone then, whatever was in it.
///
/// # Errors
/// [`RestartError`]: then nothing of it may be used.
pub fn take(path: &Path, bytes_max: u64, now: Now) -> Result<Option<Estate>, RestartError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // It stays readable, but nobody will find it again.
    std::fs::remove_file(path)?;
    sync_folder(path)?;
    if file.metadata()?.len() > bytes_max {
        return Err(RestartError::TooLarge(bytes_max));
    }
    read(file, now).map(Some)
}

fn write(
    path: &Path,
    topics: impl Iterator<Item = Kept>,
    bounds: Bounds,
    now: impl Fn() -> Now,
) -> Result<u64, RestartError> {
    // Messages are nobody else's business.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut writer = Writer {
        file: BufWriter::new(file),
        sum: Context::new(&SHA256),
        written: 0,
        bytes_max: bounds.bytes_max,
    };
    writer.put(MAGIC)?;
    let Now { uptime, wall_ms } = now();
    writer.record(&Head { uptime_ms: millis(uptime), wall_ms })?;
    let mut count = 0;
    for kept in topics {
        if now().uptime > bounds.until {
            return Err(RestartError::TooLate);
        }
        writer.record(&Topic::from(kept))?;
        count += 1;
    }
    writer.put(&0_u32.to_le_bytes())?;
    let Writer { mut file, sum, .. } = writer;
    file.write_all(sum.finish().as_ref())?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(count)
}

struct Writer {
    file: BufWriter<File>,
    sum: Context,
    written: u64,
    bytes_max: u64,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) -> Result<(), RestartError> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > self.bytes_max {
            return Err(RestartError::TooLarge(self.bytes_max));
        }
        self.sum.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }

    fn record(&mut self, record: &impl prost::Message) -> Result<(), RestartError> {
        let bytes = record.encode_to_vec();
        let len = u32::try_from(bytes.len()).ok().filter(|len| *len as usize <= RECORD_BYTES_MAX);
        let len = len.ok_or(RestartError::TooLarge(RECORD_BYTES_MAX as u64))?;
        self.put(&len.to_le_bytes())?;
        self.put(&bytes)
    }
}

fn read(file: File, now: Now) -> Result<Estate, RestartError> {
    let mut reader = Reader { file: BufReader::new(file), sum: Context::new(&SHA256) };
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(RestartError::Corrupt("it begins with something else"));
    }
    let head = reader.record()?.ok_or(RestartError::Corrupt("it has no head"))?;
    let head = Head::decode(head).map_err(|_| RestartError::Corrupt("its head is not sound"))?;
    let mut topics = Vec::new();
    while let Some(record) = reader.record()? {
        let topic = Topic::decode(record).ok().and_then(Topic::kept);
        topics.push(topic.ok_or(RestartError::Corrupt("a topic is not sound"))?);
    }
    let Reader { mut file, sum } = reader;
    let mut expected = [0; SHA256_OUTPUT_LEN];
    file.read_exact(&mut expected)?;
    if sum.finish().as_ref() != expected || file.read(&mut [0])? != 0 {
        return Err(RestartError::Corrupt("the checksum is another one"));
    }
    let pause = Duration::from_millis(now.wall_ms.saturating_sub(head.wall_ms)).min(PAUSE_MAX);
    Ok(Estate { uptime: Duration::from_millis(head.uptime_ms).saturating_add(pause), topics })
}

struct Reader {
    file: BufReader<File>,
    sum: Context,
}

impl Reader {
    /// So many bytes. No more memory is taken than there are bytes.
    fn take(&mut self, len: usize) -> Result<Vec<u8>, RestartError> {
        let mut bytes = Vec::new();
        (&mut self.file).take(len as u64).read_to_end(&mut bytes)?;
        if bytes.len() < len {
            return Err(RestartError::Corrupt("it ends too early"));
        }
        self.sum.update(&bytes);
        Ok(bytes)
    }

    /// The next record, until they end.
    fn record(&mut self) -> Result<Option<Bytes>, RestartError> {
        let len = self.take(4)?;
        let len = len.first_chunk().map_or(0, |len| u32::from_le_bytes(*len)) as usize;
        match len {
            0 => Ok(None),
            len if len > RECORD_BYTES_MAX => Err(RestartError::Corrupt("a record is too long")),
            len => Ok(Some(self.take(len)?.into())),
        }
    }
}

/// Where a file is made before it has its name.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Has the folder remember what is in it and what is not.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    #[prost(uint64, tag = "1")]
    uptime_ms: u64,
    #[prost(uint64, tag = "2")]
    wall_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Topic {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    epoch: String,
    #[prost(uint64, tag = "3")]
    top: u64,
    #[prost(uint64, tag = "4")]
    heard_ns: u64,
    #[prost(uint64, tag = "5")]
    heard_ms: u64,
    #[prost(message, repeated, tag = "6")]
    history: Vec<Message>,
    #[prost(message, repeated, tag = "7")]
    keys: Vec<Message>,
    #[prost(message, repeated, tag = "8")]
    answers: Vec<Answer>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(uint64, tag = "2")]
    time_ms: u64,
    #[prost(uint64, tag = "3")]
    committed_ns: u64,
    #[prost(uint64, optional, tag = "4")]
    ttl_ns: Option<u64>,
    #[prost(string, optional, tag = "5")]
    key: Option<String>,
    /// None for a delete.
    #[prost(oneof = "Content", tags = "6, 7, 8")]
    content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Content {
    #[prost(bytes = "bytes", tag = "6")]
    Json(Bytes),
    #[prost(bytes = "bytes", tag = "7")]
    Text(Bytes),
    #[prost(bytes = "bytes", tag = "8")]
    Binary(Bytes),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint64, tag = "2")]
    offset: u64,
    #[prost(uint64, tag = "3")]
    end_ns: u64,
}

impl From<Kept> for Topic {
    fn from(kept: Kept) -> Topic {
        let answer = |KeptAnswer { key, offset, end }: KeptAnswer| Answer {
            key: key.into(),
            offset: offset.0,
            end_ns: nanos(end),
        };
        Topic {
            name: kept.name.as_str().to_owned(),
            epoch: kept.epoch.to_string(),
            top: kept.top.0,
            heard_ns: nanos(kept.heard.uptime),
            heard_ms: kept.heard.wall_ms,
            history: kept.history.into_iter().map(Message::from).collect(),
            keys: kept.keys.into_iter().map(Message::from).collect(),
            answers: kept.answers.into_iter().map(answer).collect(),
        }
    }
}

impl Topic {
    fn kept(self) -> Option<Kept> {
        let answer = |Answer { key, offset, end_ns }: Answer| KeptAnswer {
            key: key.into(),
            offset: Offset(offset),
            end: Duration::from_nanos(end_ns),
        };
        let kept = Kept {
            name: TopicName::parse(&self.name).ok()?,
            epoch: self.epoch.parse().ok()?,
            top: Offset(self.top),
            heard: Heard { uptime: Duration::from_nanos(self.heard_ns), wall_ms: self.heard_ms },
            history: self.history.into_iter().map(Message::kept).collect(),
            keys: self.keys.into_iter().map(Message::kept).collect(),
            answers: self.answers.into_iter().map(answer).collect(),
        };
        kept.check().ok().map(|()| kept)
    }
}

impl From<KeptMessage> for Message {
    fn from(kept: KeptMessage) -> Message {
        Message {
            offset: kept.offset.0,
            time_ms: kept.time_ms,
            committed_ns: nanos(kept.committed),
            ttl_ns: kept.ttl.map(nanos),
            key: kept.key.map(Into::into),
            content: match kept.payload {
                Payload::Json(bytes) => Some(Content::Json(bytes)),
                Payload::Text(bytes) => Some(Content::Text(bytes)),
                Payload::Binary(bytes) => Some(Content::Binary(bytes)),
                // The latter two are in no history.
                Payload::Deleted | Payload::Joined(_) | Payload::Left(_) => None,
            },
        }
    }
}

impl Message {
    fn kept(self) -> KeptMessage {
        KeptMessage {
            offset: Offset(self.offset),
            time_ms: self.time_ms,
            committed: Duration::from_nanos(self.committed_ns),
            ttl: self.ttl_ns.map(Duration::from_nanos),
            key: self.key.map(Into::into),
            payload: match self.content {
                Some(Content::Json(bytes)) => Payload::Json(bytes),
                Some(Content::Text(bytes)) => Payload::Text(bytes),
                Some(Content::Binary(bytes)) => Payload::Binary(bytes),
                None => Payload::Deleted,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::message::Epoch;

    const NOW: Now = Now::at_ms(5_000);

    fn message(offset: u64, payload: Payload) -> KeptMessage {
        let committed = Duration::from_nanos(1_234_567_891);
        let (time_ms, key) = (7, (offset > 1).then(|| "k".into()));
        let ttl = (offset > 2).then_some(Duration::from_millis(1_500));
        KeptMessage { offset: Offset(offset), time_ms, committed, ttl, key, payload }
    }

    fn topics() -> Vec<Kept> {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let history = vec![
            message(1, Payload::Json(bytes("[1]"))),
            message(2, Payload::Text(bytes(""))),
            message(3, Payload::Binary(Bytes::from_static(b"\0\xff"))),
            message(4, Payload::Deleted),
        ];
        let answer = KeptAnswer { key: "a".into(), offset: Offset(3), end: Duration::from_secs(9) };
        let full = Kept {
            name: TopicName::parse("a.b").expect("a name"),
            epoch: Epoch::from_bits(77),
            top: Offset(4),
            heard: Heard { uptime: Duration::from_secs(1), wall_ms: 8 },
            keys: history[2..3].to_vec(),
            history,
            answers: vec![answer],
        };
        let name = TopicName::parse("c").expect("a name");
        let empty = Kept { name, history: vec![], keys: vec![], answers: vec![], ..full.clone() };
        vec![full, empty]
    }

    fn bounds() -> Bounds {
        Bounds { bytes_max: 1 << 20, until: NOW.uptime }
    }

    fn left(path: &Path) {
        let count = leave(path, topics().into_iter(), bounds(), || NOW).expect("written");
        assert_eq!(count, 2);
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let name = |entry: io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_is_left_is_taken_once_and_is_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("restart");
        left(&path);
        assert_eq!(names(folder.path()), ["restart"]);
        let later = Now { wall_ms: 6_000, ..NOW };
        let estate = take(&path, 1 << 20, later).expect("sound").expect("a file");
        assert_eq!(estate.uptime, Duration::from_secs(6));
        assert_eq!(estate.topics, topics());
        assert!(take(&path, 1 << 20, later).expect("nothing wrong").is_none(), "it was used twice");
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn a_file_that_was_cut_or_changed_anywhere_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("restart");
        left(&path);
        let sound = std::fs::read(&path).expect("a file");
        let cut = (0..sound.len()).map(|len| sound[..len].to_vec());
        let changed = (0..sound.len()).map(|at| {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            bytes
        });
        let longer = [sound.clone(), vec![0]].concat();
        for bytes in cut.chain(changed).chain([longer]) {
            std::fs::write(&path, &bytes).expect("a file");
            assert!(take(&path, 1 << 20, NOW).is_err(), "{} bytes", bytes.len());
            assert!(!path.exists(), "it stays");
        }
        std::fs::write(&path, &sound).expect("a file");
        assert!(take(&path, sound.len() as u64 - 1, NOW).is_err());
        std::fs::write(&path, &sound).expect("a file");
        assert!(take(&path, sound.len() as u64, NOW).is_ok());
    }

    #[test]
    fn what_is_too_much_or_too_late_leaves_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("restart");
        let late = Bounds { until: Duration::ZERO, ..bounds() };
        let small = Bounds { bytes_max: 100, ..bounds() };
        for bounds in [late, small] {
            let error = leave(&path, topics().into_iter(), bounds, || NOW).expect_err("bounded");
            assert!(matches!(error, RestartError::TooLate | RestartError::TooLarge(100)));
            assert_eq!(names(folder.path()), [""; 0]);
        }
    }

    #[test]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("restart");
        left(&path);
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
