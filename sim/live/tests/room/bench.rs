//! What the tests of rooms share: a room in a short folder, and programs of the network that are
//! threads of the test.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use wavetank_fixtures::daemon::network_namespace;
use wavetank_live::room::{HostConfig, Room, RoomConfig, RoomError, UPLINK};

/// How long silence is waited for. What is not silent answers in well under a millisecond.
pub const SILENCE: Duration = Duration::from_millis(400);
/// How long what must happen may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(120);

/// Where a child of this test program is to work.
const CHILD: &str = "WAVETANK_TEST_ROOM";

/// Held by whoever sweeps, or kills a harness and looks at what it has left: a sweep takes away
/// what another test's harness has left, before that test has seen it.
pub async fn sweeping() -> MutexGuard<'static, ()> {
    static SWEEPING: Mutex<()> = Mutex::const_new(());
    SWEEPING.lock().await
}

/// A folder with a short path: sockets lie below it.
pub fn folder() -> TempDir {
    tempfile::Builder::new().prefix("wt").tempdir().unwrap()
}

/// A room of hosts with these names; `None` if this machine cannot have one, which is a failure
/// where skipping is forbidden.
pub async fn room(folder: &Path, hosts: &[&str]) -> Option<Room> {
    let hosts = hosts.iter().map(|it| HostConfig::named(it)).collect();
    room_of(folder, hosts).await
}

pub async fn room_of(folder: &Path, hosts: Vec<HostConfig>) -> Option<Room> {
    let config = RoomConfig {
        directory: folder.join("r"),
        is_temporary: true,
        hosts,
    };
    match Room::open(config).await {
        Ok(room) => Some(room),
        Err(error @ RoomError::Unable { .. }) => {
            let required = std::env::var_os("WAVETANK_REQUIRE_RUNTIMES");
            assert!(required.is_none_or(|it| it.is_empty()), "{error}");
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{}", all_of(&error)),
    }
}

/// An error with its causes.
pub fn all_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        text = format!("{text}: {below}");
        source = below.source();
    }
    text
}

/// The address of a host, or the harness's own.
pub fn address(room: &Room, host: &str) -> IpAddr {
    match host {
        UPLINK => room.uplink().into(),
        _ => room.address(host).unwrap().into(),
    }
}

/// Does something on a host, or on the harness's own side.
pub fn on<T: Send>(room: &Room, host: &str, work: impl FnOnce() -> T + Send) -> T {
    match host {
        UPLINK => work(),
        _ => network_namespace::within(&room.netns(host).unwrap(), || Ok(work())).unwrap(),
    }
}

/// A connection that is served by an echo on its other side.
fn connect(room: &Room, from: &str, to: &str, within: Duration) -> std::io::Result<TcpStream> {
    let place = SocketAddr::new(address(room, to), 0);
    let listener = on(room, to, || TcpListener::bind(place))?;
    let place = listener.local_addr()?;
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut bytes = vec![0; 1 << 16];
        loop {
            match stream.read(&mut bytes)? {
                0 => return std::io::Result::Ok(()),
                length => stream.write_all(&bytes[..length])?,
            }
        }
    });
    let stream = on(room, from, || TcpStream::connect_timeout(&place, within))?;
    stream.set_read_timeout(Some(within))?;
    Ok(stream)
}

/// Sends a byte and reads what comes back.
pub fn echo(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
    stream.write_all(&[byte])?;
    let mut back = [0];
    stream.read_exact(&mut back)?;
    Ok(back[0])
}

/// A connection that is there and works.
pub fn connected(room: &Room, from: &str, to: &str) -> TcpStream {
    let mut stream = connect(room, from, to, LONG).unwrap();
    assert_eq!(echo(&mut stream, 1).unwrap(), 1);
    stream
}

/// Whether a new connection can be made and used.
pub fn reaches(room: &Room, from: &str, to: &str) -> bool {
    works(room, from, to, LONG)
}

/// Whether none can, for as long as silence is waited for.
pub fn is_cut(room: &Room, from: &str, to: &str) -> bool {
    !works(room, from, to, SILENCE)
}

fn works(room: &Room, from: &str, to: &str, within: Duration) -> bool {
    let stream = connect(room, from, to, within);
    stream.and_then(|mut it| echo(&mut it, 7)).is_ok()
}

/// Whether all of so many datagrams arrive.
pub fn all_arrive(room: &Room, from: &str, to: &str, count: u32, bytes: usize) -> bool {
    arrived(room, from, to, (count, bytes), [LONG, LONG]) == count
}

/// How many of so many datagrams arrive, some of which are lost but not all.
pub fn arriving(room: &Room, from: &str, to: &str, count: u32, bytes: usize) -> u32 {
    arrived(room, from, to, (count, bytes), [LONG, SILENCE])
}

/// Whether none of so many datagrams arrives, for as long as silence is waited for.
pub fn none_arrives(room: &Room, from: &str, to: &str, count: u32, bytes: usize) -> bool {
    arrived(room, from, to, (count, bytes), [SILENCE, SILENCE]) == 0
}

/// How many arrive when the first is waited for so long, and each after it so long.
fn arrived(
    room: &Room,
    from: &str,
    to: &str,
    (count, bytes): (u32, usize),
    [first, next]: [Duration; 2],
) -> u32 {
    let socket = |host: &str| {
        let place = SocketAddr::new(address(room, host), 0);
        on(room, host, || UdpSocket::bind(place)).unwrap()
    };
    let (sender, receiver) = (socket(from), socket(to));
    receiver.set_read_timeout(Some(first)).unwrap();
    let place = receiver.local_addr().unwrap();
    let (datagram, mut buffer) = (vec![0; bytes], vec![0; bytes]);
    let sending = std::thread::spawn(move || {
        for _ in 0..count {
            let _ = sender.send_to(&datagram, place);
        }
    });
    let mut arrives = || {
        let received = receiver.recv(&mut buffer);
        receiver.set_read_timeout(Some(next)).unwrap();
        received.is_ok()
    };
    let arrived = (0..count).take_while(|_| arrives());
    let arrived = u32::try_from(arrived.count()).unwrap();
    sending.join().unwrap();
    arrived
}

/// A shell script.
pub fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs another test of this program in a process of its own, which hangs once it has written what
/// it has to say; kills it then, and returns what it said.
pub async fn killed(test: &str, folder: &Path) -> Vec<u8> {
    let said = folder.join("said");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, folder)
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    until("the child is ready", || length(&said) > 0).await;
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::read(said).unwrap()
}

/// For a test that is the child of another: where it is to work, `None` if it is nobody's child.
pub fn child_folder() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Says what a child has to say, and hangs.
pub async fn say_and_hang(folder: &Path, said: &impl serde::Serialize) {
    let draft = folder.join("draft");
    std::fs::write(&draft, serde_json::to_vec(said).unwrap()).unwrap();
    std::fs::rename(draft, folder.join("said")).unwrap();
    std::future::pending::<()>().await;
}

/// The length of a file; 0 if it is absent.
pub fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |it| it.len())
}
