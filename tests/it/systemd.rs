//! The broker under a service manager: sockets that are handed over, and what the manager hears.
//! Owns the manager's side of both. Without `unsafe` a test cannot give its child files of its
//! choice, so it hands sockets over as standard input and output, and a shell moves them.
//! # Not here: systemd itself, which no container runs (`tests/deploy` has its own checks).

use crate::client::Client;
use crate::harness::{Broker, run};
use fanfare::topics::message::Wire;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long the broker may take to say something.
const DEADLINE: Duration = Duration::from_secs(30);

/// Makes two files the first two that are handed over, and becomes the broker.
const HAND_OVER: &str = "exec 3<&0 4<&1 0</dev/null 1>/dev/null; LISTEN_PID=$$ exec \"$@\"";

/// A broker under a manager that is this test.
struct Managed {
    child: Child,
    manager: UnixDatagram,
    _folder: TempDir,
}

impl Managed {
    fn start(sockets: [TcpListener; 2], names: &str, arguments: &[&str]) -> Managed {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        manager.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let [first, second] = sockets.map(|socket| Stdio::from(OwnedFd::from(socket)));
        let child = Command::new("sh")
            .args(["-c", HAND_OVER, "sh", env!("CARGO_BIN_EXE_fanfare")])
            .args(["serve", "--ingress=off", "--shards=2", "--log-format=json"])
            .args(arguments)
            .env("LISTEN_FDS", "2")
            .env("LISTEN_FDNAMES", names)
            .env("NOTIFY_SOCKET", path)
            .env("WATCHDOG_USEC", "4000000")
            .env_remove("WATCHDOG_PID")
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .stdin(first)
            .stdout(second)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        Managed { child, manager, _folder: folder }
    }

    /// What the manager hears next.
    fn heard(&self) -> String {
        let mut buffer = [0; 256];
        let len = self.manager.recv(&mut buffer).expect("a word for the manager");
        String::from_utf8_lossy(&buffer[..len]).trim_end().to_owned()
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().expect("a child");
    }
}

fn listener(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[test]
fn a_broker_serves_the_sockets_that_it_is_handed_and_tells_how_it_fares() {
    run(async {
        let (public, public_address) = listener("127.0.0.1:0");
        let (admin, admin_address) = listener("127.0.0.1:0");
        // Addresses that nobody could bind: what is handed over is used instead.
        let flags = ["--listen=127.0.0.1:1", "--admin=127.0.0.1:1"];
        let mut managed = Managed::start([admin, public], "admin:public", &flags);
        assert_eq!(managed.heard(), "READY=1");

        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let broker = Broker::elsewhere(public_address, nowhere, admin_address);
        let mut client = Client::connect(&broker, Wire::WebSocketJson).await;
        let publish = json!({"id": 1, "publish": {"topic": "a.b", "data": 1}});
        assert_eq!(client.ask(&publish).await["published"]["offset"], 1);
        let url = format!("http://{admin_address}");
        let probe = Command::new(env!("CARGO_BIN_EXE_fanfare")).args(["probe", &url]).output();
        let probe = probe.expect("the binary starts");
        assert!(probe.status.success(), "{}", String::from_utf8_lossy(&probe.stderr));
        assert_eq!(probe.stdout, b"ready\n");

        // Idle or not, its shards show life, again and again.
        assert_eq!(managed.heard(), "WATCHDOG=1");
        assert_eq!(managed.heard(), "WATCHDOG=1");
        kill_process(Pid::from_child(&managed.child), Signal::HUP).expect("it is there");
        let words = std::iter::repeat_with(|| managed.heard());
        let mut words = words.skip_while(|word| word == "WATCHDOG=1");
        let reloading = words.next().expect("a word");
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(since.is_some_and(|since| since.parse::<u64>().is_ok()), "{reloading}");
        assert_eq!(words.find(|word| word != "WATCHDOG=1").as_deref(), Some("READY=1"));
        drop(words);
        kill_process(Pid::from_child(&managed.child), Signal::TERM).expect("it is there");
        assert_eq!(client.ending().await.code, 1001);
        let stopping = std::iter::repeat_with(|| managed.heard());
        let mut stopping = stopping.skip_while(|word| word == "WATCHDOG=1");
        assert_eq!(stopping.next().as_deref(), Some("STOPPING=1"));
        drop(stopping);
        assert!(managed.child.wait().expect("a child").success());
        let probe = Command::new(env!("CARGO_BIN_EXE_fanfare")).args(["probe", &url]).output();
        let probe = probe.expect("the binary starts");
        assert_eq!(probe.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&probe.stderr).contains("cannot connect"));
    });
}

#[test]
fn a_broker_refuses_sockets_that_it_would_not_have_bound() {
    let open = "which other machines can reach";
    let cases = [
        ("127.0.0.1:0", "public:web", "handed over as `web`"),
        ("127.0.0.1:0", "public:public", "two sockets were handed over as `public`"),
        ("127.0.0.1:0", "public", "LISTEN_FDNAMES"),
        ("0.0.0.0:0", "public:admin", open),
    ];
    for (address, names, words) in cases {
        let sockets = [listener(address).0, listener("127.0.0.1:0").0];
        let mut managed = Managed::start(sockets, names, &[]);
        assert_eq!(managed.child.wait().expect("a child").code(), Some(1), "{names}");
        let stderr = BufReader::new(managed.child.stderr.take().expect("a pipe"));
        let told: Vec<String> = stderr.lines().map_while(Result::ok).collect();
        assert!(told.join("\n").contains(words), "{names}: {told:?}");
    }
}
