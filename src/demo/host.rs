//! This host's processor, memory, disk and network, as messages.
//! Owns the last reading of every counter, because a rate needs two.
//! # Invariants: a number is either measured or left out; a topic whose file cannot be read says
//! nothing but why, once.
//! # Not here: what the text of a file means (`proc`), when to sample (`mod`).

use super::proc::{self, Counters, CpuTimes, Memory, float};
use super::{draft, rounded};
use crate::clock::Now;
use crate::topics::message::Draft;
use crate::topics::name::TopicName;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reads the host. It gives nothing where there is no Linux `/proc`.
#[derive(Debug)]
pub struct Sampler {
    root: PathBuf,
    cpu: Source<CpuTimes>,
    memory: Source<Memory>,
    disk: Source<Counters>,
    network: Source<Counters>,
}

impl Sampler {
    /// A sampler of this directory, which is `/proc` outside tests.
    pub fn new(root: PathBuf) -> Sampler {
        Sampler {
            root,
            cpu: Source::new("host.cpu", "stat", proc::parse_stat),
            memory: Source::new("host.memory", "meminfo", proc::parse_meminfo),
            disk: Source::new("host.disk", "diskstats", proc::parse_diskstats),
            network: Source::new("host.network", "net/dev", proc::parse_net_dev),
        }
    }

    /// Reads every file and gives what happened since the last call; the first one only knows the
    /// memory.
    pub fn sample(&mut self, now: Now) -> Vec<Draft> {
        let drafts = [self.cpu(now), self.memory(), self.disk(now), self.network(now)];
        drafts.into_iter().flatten().collect()
    }

    fn cpu(&mut self, now: Now) -> Option<Draft> {
        let mut usage = CpuUsage::measure(&self.cpu.step(&self.root, now)?)?;
        // Without this file the rest of the message still stands.
        usage.load =
            read_text(&self.root.join("loadavg")).ok().and_then(|text| proc::parse_loadavg(&text));
        draft(&self.cpu.topic, None, &usage)
    }

    fn memory(&mut self) -> Option<Draft> {
        let memory = self.memory.read(&self.root)?;
        let used = memory.total - memory.available;
        let usage = MemoryUsage {
            used_bytes: used,
            available_bytes: memory.available,
            total_bytes: memory.total,
            percent: rounded(100.0 * float(used) / float(memory.total), 10.0),
            swap_used_bytes: memory.swap_used,
        };
        draft(&self.memory.topic, None, &usage)
    }

    fn disk(&mut self, now: Now) -> Option<Draft> {
        let [bytes_read, reads, bytes_written, writes] = rates(&self.disk.step(&self.root, now)?)?;
        let traffic = DiskTraffic {
            read_bytes_per_second: bytes_read,
            write_bytes_per_second: bytes_written,
            reads_per_second: reads,
            writes_per_second: writes,
        };
        draft(&self.disk.topic, None, &traffic)
    }

    fn network(&mut self, now: Now) -> Option<Draft> {
        let [bytes_in, packets_in, bytes_out, packets_out] =
            rates(&self.network.step(&self.root, now)?)?;
        let traffic = NetworkTraffic {
            receive_bytes_per_second: bytes_in,
            transmit_bytes_per_second: bytes_out,
            receive_packets_per_second: packets_in,
            transmit_packets_per_second: packets_out,
        };
        draft(&self.network.topic, None, &traffic)
    }
}

/// One file, the topic it feeds, and what it said last.
#[derive(Debug)]
struct Source<T> {
    topic: TopicName,
    file: &'static str,
    parse: fn(&str) -> Option<T>,
    last: Option<(Duration, T)>,
    /// How often it was said that the topic is left out: at most once.
    told: u32,
}

/// Two readings and the time between them, which is not zero.
struct Step<'s, T> {
    before: T,
    after: &'s T,
    elapsed: Duration,
}

impl<T> Source<T> {
    #[expect(clippy::expect_used, reason = "the names are the four literals above")]
    fn new(topic: &'static str, file: &'static str, parse: fn(&str) -> Option<T>) -> Source<T> {
        Source {
            topic: TopicName::parse(topic).expect("a valid literal"),
            file,
            parse,
            last: None,
            told: 0,
        }
    }

    /// Reads the file. None leaves the topic out of this round, and the first time says why.
    fn read(&mut self, root: &Path) -> Option<T> {
        let path = root.join(self.file);
        let unknown = || io::Error::new(io::ErrorKind::InvalidData, "it has no such numbers");
        let value = read_text(&path).and_then(|text| (self.parse)(&text).ok_or_else(unknown));
        if let Err(error) = &value
            && self.told == 0
        {
            self.told += 1;
            let (topic, path) = (&self.topic, path.display());
            tracing::info!(%topic, %path, %error, "a topic of the host is left out");
        }
        value.ok()
    }

    /// Reads the file and remembers it. None the first time, and when no time has passed: then the
    /// older reading is the one to keep.
    fn step(&mut self, root: &Path, now: Now) -> Option<Step<'_, T>> {
        let value = self.read(root)?;
        let Some((at, _)) = &self.last else {
            self.last = Some((now.uptime, value));
            return None;
        };
        let elapsed = now.uptime.checked_sub(*at).filter(|time| !time.is_zero())?;
        let (_, before) = self.last.replace((now.uptime, value))?;
        let (_, after) = self.last.as_ref()?;
        Some(Step { before, after, elapsed })
    }
}

/// Most bytes read of one file. Those of a host with thousands of devices are smaller.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Reads the whole lines of a file.
fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    // A file that goes on is cut at a line: half a number would look like a smaller one.
    if bytes.len() == FILE_BYTES_MAX {
        let whole = memchr::memrchr(b'\n', &bytes).unwrap_or(0);
        bytes.truncate(whole);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Counts per second with one decimal, if there is any that is known.
fn rates(step: &Step<'_, Counters>) -> Option<[Option<f64>; 4]> {
    let seconds = step.elapsed.as_secs_f64();
    let counted = proc::counted(&step.before, step.after)?;
    let rates = counted.map(|count| count.map(|count| rounded(float(count) / seconds, 10.0)));
    rates.iter().any(Option::is_some).then_some(rates)
}

/// What a message on `host.cpu` says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CpuUsage {
    percent: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cores: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<[f64; 3]>,
}

impl CpuUsage {
    fn measure(step: &Step<'_, CpuTimes>) -> Option<CpuUsage> {
        let percent = step.after.all.percent_since(step.before.all)?;
        // Cores are told apart by their place in the list, so they are all there or none is.
        let same = step.after.cores.keys().eq(step.before.cores.keys());
        let cores = step.after.cores.values().zip(step.before.cores.values());
        let cores: Option<Vec<f64>> = cores
            .map(|(after, before)| Some(rounded(after.percent_since(*before)?, 10.0)))
            .collect();
        Some(CpuUsage {
            percent: rounded(percent, 10.0),
            cores: cores.filter(|_| same),
            load: None,
        })
    }
}

/// What a message on `host.memory` says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemoryUsage {
    used_bytes: u64,
    available_bytes: u64,
    total_bytes: u64,
    percent: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap_used_bytes: Option<u64>,
}

/// What a message on `host.disk` says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are those of the message")]
struct DiskTraffic {
    #[serde(skip_serializing_if = "Option::is_none")]
    read_bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reads_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writes_per_second: Option<f64>,
}

/// What a message on `host.network` says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are those of the message")]
struct NetworkTraffic {
    #[serde(skip_serializing_if = "Option::is_none")]
    receive_bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transmit_bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receive_packets_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transmit_packets_per_second: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// A directory that looks like `/proc`.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new(files: &[(&str, &str)]) -> Host {
            let host = Host(tempfile::tempdir().unwrap());
            std::fs::create_dir(host.0.path().join("net")).unwrap();
            host.write(files);
            host
        }

        fn write(&self, files: &[(&str, &str)]) {
            for (name, text) in files {
                std::fs::write(self.0.path().join(name), text).unwrap();
            }
        }

        fn remove(&self, name: &str) {
            std::fs::remove_file(self.0.path().join(name)).unwrap();
        }

        fn sampler(&self) -> Sampler {
            Sampler::new(self.0.path().to_path_buf())
        }
    }

    const BEFORE: [(&str, &str); 5] = [
        (
            "stat",
            "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 50 0 50 400 0 0 0 0 0 0\ncpu1 50 0 50 400 0 0 0 0 0 0\n",
        ),
        ("loadavg", "0.25 0.40 0.32 1/98 12013\n"),
        ("meminfo", "MemTotal: 1000 kB\nMemAvailable: 667 kB\nSwapTotal: 9 kB\nSwapFree: 7 kB\n"),
        ("diskstats", "8 0 sda 10 0 80 0 20 0 160 0 0 0 0\n8 1 sda1 10 0 80 0 20 0 160 0 0 0 0\n"),
        (
            "net/dev",
            "lo: 5 5 0 0 0 0 0 0 5 5 0 0 0 0 0 0\neth0: 1000 10 0 0 0 0 0 0 2000 20 0 0 0 0 0 0\n",
        ),
    ];
    const AFTER: [(&str, &str); 4] = [
        (
            "stat",
            "cpu  110 0 105 835 0 0 0 0 0 0\ncpu0 60 0 55 410 0 0 0 0 0 0\ncpu1 50 0 50 425 0 0 0 0 0 0\n",
        ),
        ("loadavg", "0.5 0.6 0.7 1/98 12014\n"),
        ("diskstats", "8 0 sda 11 0 84 0 22 0 168 0 0 0 0\n8 1 sda1 99 0 99 0 99 0 999 0 0 0 0\n"),
        (
            "net/dev",
            "lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\neth0: 1500 13 0 0 0 0 0 0 2001 21 0 0 0 0 0 0\n",
        ),
    ];
    const MEMORY: &str = r#"host.memory {"usedBytes":340992,"availableBytes":683008,"totalBytes":1024000,"percent":33.3,"swapUsedBytes":2048}"#;

    fn sample(sampler: &mut Sampler, ms: u64) -> Vec<String> {
        let drafts = sampler.sample(Now::at_ms(ms));
        drafts
            .iter()
            .map(|draft| {
                assert_eq!(draft.key, None);
                let json = std::str::from_utf8(draft.payload.bytes()).unwrap();
                format!("{} {json}", draft.topic)
            })
            .collect()
    }

    #[test]
    fn two_readings_give_exact_rates() {
        let host = Host::new(&BEFORE);
        let mut sampler = host.sampler();
        assert_eq!(sample(&mut sampler, 1_000), [MEMORY]);
        host.write(&AFTER);
        let expected = [
            r#"host.cpu {"percent":30.0,"cores":[60.0,0.0],"load":[0.5,0.6,0.7]}"#,
            MEMORY,
            r#"host.disk {"readBytesPerSecond":8192.0,"writeBytesPerSecond":16384.0,"readsPerSecond":4.0,"writesPerSecond":8.0}"#,
            r#"host.network {"receiveBytesPerSecond":2000.0,"transmitBytesPerSecond":4.0,"receivePacketsPerSecond":12.0,"transmitPacketsPerSecond":4.0}"#,
        ];
        assert_eq!(sample(&mut sampler, 1_250), expected);
    }

    #[test]
    fn rates_are_rounded_to_one_decimal() {
        let host = Host::new(&BEFORE);
        let mut sampler = host.sampler();
        sample(&mut sampler, 0);
        host.write(&AFTER);
        let lines = sample(&mut sampler, 300);
        assert!(lines[2].contains(r#""readsPerSecond":3.3,"writesPerSecond":6.7"#), "{lines:?}");
    }

    #[test]
    fn a_call_in_the_same_instant_keeps_the_older_reading() {
        let host = Host::new(&BEFORE);
        let mut sampler = host.sampler();
        sample(&mut sampler, 1_000);
        host.write(&AFTER);
        assert_eq!(sample(&mut sampler, 1_000), [MEMORY]);
        assert_eq!(sample(&mut sampler, 900), [MEMORY]);
        let lines = sample(&mut sampler, 2_000);
        assert!(lines[3].contains(r#""receiveBytesPerSecond":500.0"#));
    }

    #[test]
    fn a_counter_that_went_back_leaves_its_field_out_for_one_round() {
        let host = Host::new(&BEFORE);
        let mut sampler = host.sampler();
        sample(&mut sampler, 0);
        host.write(&[
            ("stat", "cpu  90 0 105 835 0 0 0 0 0 0\ncpu0 60 0 55 410 0 0 0 0 0 0\n"),
            ("diskstats", "8 0 sda 11 0 0 0 22 0 168 0 0 0 0\n"),
            ("net/dev", "eth0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"),
        ]);
        let expected = [
            MEMORY,
            r#"host.disk {"writeBytesPerSecond":4096.0,"readsPerSecond":1.0,"writesPerSecond":2.0}"#,
        ];
        assert_eq!(sample(&mut sampler, 1_000), expected);
        host.write(&AFTER);
        assert_eq!(sample(&mut sampler, 2_000).len(), 4);
    }

    #[test]
    fn a_core_that_comes_or_goes_back_leaves_the_cores_out_for_one_round() {
        for stat in [
            "cpu  110 0 105 835\ncpu0 60 0 55 410\n",
            "cpu  110 0 105 835\ncpu0 60 0 55 410\ncpu2 50 0 50 425\n",
            "cpu  110 0 105 835\ncpu0 60 0 55 410\ncpu1 49 0 50 425\n",
        ] {
            let host = Host::new(&BEFORE);
            let mut sampler = host.sampler();
            sample(&mut sampler, 0);
            host.write(&[("stat", stat)]);
            host.remove("loadavg");
            let lines = sample(&mut sampler, 1_000);
            assert_eq!(lines[0], r#"host.cpu {"percent":30.0}"#, "{stat}");
        }
    }

    #[test]
    fn a_missing_file_leaves_one_topic_out_until_it_comes_back() {
        let host = Host::new(&BEFORE);
        let mut sampler = host.sampler();
        sample(&mut sampler, 0);
        host.remove("diskstats");
        let topics = |lines: Vec<String>| -> Vec<String> {
            let topic = |line: &String| line.split(' ').next().unwrap().to_owned();
            lines.iter().map(topic).collect()
        };
        host.write(&[AFTER[0]]);
        assert_eq!(topics(sample(&mut sampler, 250)), ["host.cpu", "host.memory", "host.network"]);
        host.write(&[BEFORE[0], AFTER[2]]);
        assert_eq!(topics(sample(&mut sampler, 500)), ["host.memory", "host.disk", "host.network"]);
    }

    #[test]
    fn a_topic_that_is_left_out_says_so_once() {
        let host = Host::new(&BEFORE[..3]);
        host.write(&[("net/dev", "no numbers")]);
        let mut sampler = host.sampler();
        for ms in 0..5 {
            sampler.sample(Now::at_ms(ms));
        }
        assert_eq!((sampler.cpu.told, sampler.memory.told), (0, 0));
        assert_eq!((sampler.disk.told, sampler.network.told), (1, 1));
    }

    #[test]
    fn where_there_is_no_proc_there_is_nothing() {
        let host = Host::new(&[]);
        let mut sampler = Sampler::new(host.0.path().join("nothing"));
        assert!(sampler.sample(Now::at_ms(0)).is_empty());
        assert!(sampler.sample(Now::at_ms(250)).is_empty());
    }

    #[test]
    fn files_of_any_bytes_and_any_length_are_survived() {
        let host = Host::new(&BEFORE);
        let mut sampler = host.sampler();
        sample(&mut sampler, 0);
        for (name, _) in BEFORE {
            std::fs::write(host.0.path().join(name), [0xff, 0, b':', b'\n', 0xc3]).unwrap();
        }
        assert!(sample(&mut sampler, 250).is_empty());
        // The file is cut inside the last number: 1 instead of 1000 must not be believed.
        let line = "eth1: 1 1 0 0 0 0 0 0 1 1000 0 0 0 0 0 0\n";
        let kept = line.find("000 0").unwrap();
        let filler = "x".repeat(FILE_BYTES_MAX - BEFORE[4].1.len() - kept - 1);
        let long = format!("{}{filler}\n{line}", BEFORE[4].1);
        host.write(&[("net/dev", &long)]);
        let text = read_text(&host.0.path().join("net/dev")).unwrap();
        assert!(text.len() < FILE_BYTES_MAX && !text.contains("eth1"));
        assert_eq!(proc::parse_net_dev(&text).unwrap().len(), 1);
    }

    /// On other systems there is nothing to read, which a test above covers.
    #[cfg(target_os = "linux")]
    #[test]
    fn this_host_gives_sound_numbers() {
        const TRIES: u64 = 200_000;
        let mut sampler = Sampler::new(PathBuf::from("/proc"));
        let mut seen = std::collections::BTreeSet::new();
        // The kernel's clock ticks only every few milliseconds: read until it did.
        for ms in 0..TRIES {
            for line in sample(&mut sampler, ms) {
                let (topic, json) = line.split_once(' ').unwrap();
                check_numbers(&serde_json::from_str(json).unwrap());
                seen.insert(topic.to_owned());
            }
            if seen.contains("host.cpu") {
                break;
            }
        }
        assert!(seen.contains("host.memory") && seen.contains("host.cpu"), "{seen:?}");
    }

    fn check_numbers(value: &Value) {
        for number in value.as_object().unwrap().values() {
            assert!(number.as_f64().is_none_or(|n| n >= 0.0), "{value}");
        }
        let cores = value.get("cores").and_then(Value::as_array);
        let percents = value.get("percent").into_iter().chain(cores.into_iter().flatten());
        for percent in percents {
            let percent = percent.as_f64().unwrap();
            assert!((0.0..=100.0).contains(&percent), "{value}");
        }
    }
}
