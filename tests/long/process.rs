//! A broker in a process of its own, and what the system and its own metrics say of it.
//! The program is that of `FANFARE_BIN`, or the one that was built with the tests.
//! # Invariants: it ends with its test; its log is read for as long as it runs, and its last lines
//! are told when a test fails.
//! # Not here: who connects to it.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a broker may take to begin, and to answer an operator.
const DEADLINE: Duration = Duration::from_mins(1);

/// Lines of its log that are remembered.
const LINES_MAX: usize = 60;

/// Ticks of the system's count of processor time in a second; Linux has no other number.
const TICKS: f64 = 100.0;

type Lines = Arc<Mutex<VecDeque<String>>>;

pub(crate) struct Process {
    child: Child,
    lines: Lines,
    pub(crate) public: SocketAddr,
    pub(crate) ingress: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// A folder with the settings of a broker, and with what it leaves behind.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    pub(crate) fn new(settings: &str) -> Home {
        let home = Home { folder: tempfile::tempdir().expect("a folder") };
        fs::write(home.file("fanfare.toml"), settings).expect("a file");
        home
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes settings that name files of this folder.
    pub(crate) fn write(&self, settings: &str) {
        fs::write(self.file("fanfare.toml"), settings).expect("a file");
    }

    /// Starts a broker with the settings. `public` is where it listens.
    pub(crate) fn serve(&self, public: &str) -> Process {
        self.serve_in(public, None)
    }

    /// The same in a control group, given by the file that lists its processes.
    pub(crate) fn serve_in(&self, public: &str, group: Option<&Path>) -> Process {
        let mut command = Command::new("sh");
        let enter = group.map_or(String::new(), |file| format!("echo $$ >'{}' &&", file.display()));
        command.args(["-c", &format!("{enter} exec \"$0\" \"$@\""), &program()]);
        command.args(["serve", "--log-format=json", "--listen", public]);
        command.args(["--ingress=127.0.0.1:0", "--admin=127.0.0.1:0", "--config"]);
        command.arg(self.file("fanfare.toml"));
        Process::start(command)
    }
}

fn program() -> String {
    std::env::var("FANFARE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_fanfare").to_owned())
}

impl Process {
    fn start(mut command: Command) -> Process {
        let streams = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = streams.spawn().expect("the broker starts");
        let lines = Lines::default();
        let (sender, places) = sync_channel(16);
        let stderr = child.stderr.take().expect("a pipe");
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || read_log(stderr, &sender, &kept));
        let [public, ingress, admin] = ["WebSocket and HTTP", "TCP ingress", "metrics and health"]
            .map(|purpose| place_of(&places, purpose, &lines));
        Process { child, lines, public, ingress, admin }
    }

    fn proc(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.child.id());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}; {}", self.log()))
    }

    /// A line of `/proc/PID/status` in KiB, as bytes; or a plain number.
    fn status(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let mut words = line.expect(name).split_ascii_whitespace();
        let number: u64 = words.next().expect("a number").parse().expect("a number");
        if words.next() == Some("kB") { number * 1024 } else { number }
    }

    /// Bytes of memory that it has now.
    pub(crate) fn resident(&self) -> u64 {
        self.status("VmRSS")
    }

    /// The most that it ever had.
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM")
    }

    pub(crate) fn threads(&self) -> u64 {
        self.status("Threads")
    }

    /// What its open files are, and how many there are of each kind.
    pub(crate) fn files(&self) -> BTreeMap<String, usize> {
        let mut files = BTreeMap::new();
        let folder = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs");
        // One may be closed between two looks.
        let targets = folder.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        for target in targets {
            let target = target.to_string_lossy().into_owned();
            let kind = target.split(":[").next().unwrap_or_default();
            *files.entry(kind.to_owned()).or_default() += 1;
        }
        files
    }

    /// Looks at the open files until they are so, or for long enough. Returns the last look.
    pub(crate) fn files_until(
        &self,
        mut is_right: impl FnMut(&BTreeMap<String, usize>) -> bool,
    ) -> BTreeMap<String, usize> {
        let begin = Instant::now();
        loop {
            // A connection that has just been served is closed in between.
            std::thread::sleep(Duration::from_millis(300));
            let files = self.files();
            if is_right(&files) || begin.elapsed() > DEADLINE {
                return files;
            }
        }
    }

    /// Processor time so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        let after_name = stat.rsplit(')').next().expect("a name in brackets");
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
        (ticks(11) + ticks(12)) / TICKS
    }

    /// What its metrics page says now: the sum over the labels of each series, and each by itself.
    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        let page = get(self.admin, "/metrics").unwrap_or_else(|error| {
            panic!("no metrics: {error}; {}", self.log());
        });
        let mut metrics = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let name = series.split('{').next().unwrap_or_default();
            *metrics.entry(name.to_owned()).or_default() += value;
            if name != series {
                metrics.insert(series.to_owned(), value);
            }
        }
        metrics
    }

    /// Waits until the metrics are so, and says whether they are in time.
    pub(crate) fn until(
        &self,
        most: Duration,
        is_right: impl Fn(&BTreeMap<String, f64>) -> bool,
    ) -> bool {
        let begin = Instant::now();
        loop {
            if is_right(&self.metrics()) {
                return true;
            }
            if begin.elapsed() > most {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Asks it to end, as a service manager does.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
    }

    /// Whether it has ended, and how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// Asks it to end and waits for that; it must do so in good order.
    pub(crate) fn stop(mut self) {
        self.terminate();
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            assert!(begin.elapsed() < DEADLINE, "it does not end; {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}; {}", self.log());
    }

    /// The last lines of its log.
    pub(crate) fn log(&self) -> String {
        tell(&self.lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().expect("a child");
    }
}

fn tell(lines: &Lines) -> String {
    let lines = lines.lock().expect("no panic");
    format!("the last of its log:\n{}", lines.iter().cloned().collect::<Vec<_>>().join("\n"))
}

fn read_log(pipe: impl Read, places: &SyncSender<(String, SocketAddr)>, lines: &Lines) {
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let address = value["address"].as_str().and_then(|address| address.parse().ok());
        let message = value["message"].as_str().unwrap_or_default();
        if let (Some(purpose), Some(address)) = (message.strip_prefix("listening for "), address) {
            // Nobody reads these later.
            places.try_send((purpose.to_owned(), address)).unwrap_or_default();
        }
        let mut lines = lines.lock().expect("no panic");
        lines.push_back(line);
        let over = lines.len().saturating_sub(LINES_MAX);
        lines.drain(..over);
    }
}

fn place_of(places: &Receiver<(String, SocketAddr)>, purpose: &str, lines: &Lines) -> SocketAddr {
    loop {
        let Ok((of, address)) = places.recv_timeout(DEADLINE) else {
            panic!("it does not listen for {purpose}; {}", tell(lines));
        };
        if of == purpose {
            return address;
        }
    }
}

/// The body of a page.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    Ok(body.unwrap_or_default())
}
