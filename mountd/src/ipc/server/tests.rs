//! Tests of the control socket, over real sockets.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::ipc::client::ConnectError;
use crate::ipc::{Client, Progress, Response, Unit};

/// Answers some requests; holds `Verify` until it is told to go on.
struct Fake {
    entered: mpsc::Sender<()>,
    gate: Mutex<mpsc::Receiver<()>>,
    handled: AtomicUsize,
}

impl Service for Fake {
    fn handle(
        &self,
        request: Request,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Response, Failure> {
        self.handled.fetch_add(1, Ordering::SeqCst);
        match request {
            Request::Ping => Ok(Response::Done),
            Request::Members => {
                for done in 0..3 {
                    let stage = "counting".to_owned();
                    progress(Progress { stage, done, total: Some(3), unit: Unit::Items });
                }
                Ok(Response::Members(Vec::new()))
            }
            Request::Verify { .. } => {
                self.entered.send(()).unwrap();
                self.gate.lock().recv_timeout(Duration::from_secs(20)).unwrap();
                Ok(Response::Done)
            }
            Request::Conflicts => panic!("a defect in the service"),
            Request::Export { .. } => {
                Ok(Response::Ticket("x".repeat(super::super::frame::FRAME_LEN_MAX)))
            }
            _ => Err(Failure::refused("not you")),
        }
    }
}

struct World {
    dir: tempfile::TempDir,
    server: Option<Server>,
    fake: Arc<Fake>,
    entered: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    world_in(dir, "")
}

fn world_in(dir: tempfile::TempDir, below: &str) -> World {
    let store = dir.path().join(below);
    std::fs::create_dir_all(&store).unwrap();
    let (entered_tx, entered) = mpsc::channel();
    let (go, gate) = mpsc::channel();
    let fake = Arc::new(Fake {
        entered: entered_tx,
        gate: Mutex::new(gate),
        handled: AtomicUsize::new(0),
    });
    let server = Server::bind(&store, Arc::clone(&fake) as Arc<dyn Service>).unwrap();
    World { dir, server: Some(server), fake, entered, go }
}

impl World {
    fn client(&self) -> Client {
        Client::connect(self.dir.path()).unwrap()
    }

    /// A connection that has said nothing yet.
    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join(SOCKET_NAME)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

fn quietly(client: &mut Client, request: &Request) -> Result<Response, Failure> {
    client.ask(request, &mut |_| {})
}

#[test]
fn answers_progress_and_failures_arrive() {
    let world = world();
    let mut client = world.client();
    assert_eq!(quietly(&mut client, &Request::Ping), Ok(Response::Done));
    let mut seen = Vec::new();
    let answer = client.ask(&Request::Members, &mut |step| seen.push(step.done));
    assert_eq!(answer, Ok(Response::Members(Vec::new())));
    assert_eq!(seen, [0, 1, 2]);
    let refused = quietly(&mut client, &Request::Unmount).unwrap_err();
    assert_eq!((refused.code, refused.exit().number()), (Code::Refused, 4));
    // The conversation goes on after a failure.
    assert_eq!(quietly(&mut client, &Request::Ping), Ok(Response::Done));
}

#[test]
fn the_socket_is_its_owners_only() {
    let world = world();
    let meta = std::fs::metadata(world.dir.path().join(SOCKET_NAME)).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_long_request_does_not_hold_up_others() {
    let world = world();
    let mut slow = world.client();
    let waiting =
        std::thread::spawn(move || quietly(&mut slow, &Request::Verify { repair: false }));
    world.entered.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(quietly(&mut world.client(), &Request::Ping), Ok(Response::Done));
    world.go.send(()).unwrap();
    assert_eq!(waiting.join().unwrap(), Ok(Response::Done));
}

#[test]
fn one_conversation_too_many_is_told_that_the_daemon_is_busy() {
    let world = world();
    let mut held: Vec<Client> = (0..CONNECTIONS_MAX).map(|_| world.client()).collect();
    match Client::connect(world.dir.path()) {
        Err(ConnectError::Failed(failure)) => assert_eq!(failure.code, Code::Busy),
        other => panic!("{other:?}"),
    }
    // Those that were in keep their place, and a place that gets free is given again.
    assert_eq!(quietly(&mut held[0], &Request::Ping), Ok(Response::Done));
    held.clear();
    let deadline = Instant::now() + Duration::from_secs(20);
    while Client::connect(world.dir.path()).is_err() {
        assert!(Instant::now() < deadline, "no place gets free");
        std::thread::yield_now();
    }
}

#[test]
fn another_version_is_told_apart() {
    let world = world();
    let mut stream = world.raw();
    write_frame(&mut stream, &Hello { protocol: PROTOCOL + 1 }).unwrap();
    let reply: Reply = read_frame(&mut stream).unwrap();
    assert_eq!(reply, Reply::Hello(Hello { protocol: PROTOCOL }));
    assert!(matches!(read_frame::<Reply>(&mut stream), Err(FrameError::Ended)));

    // And the other way round: a daemon that speaks another version.
    let dir = tempfile::tempdir().unwrap();
    let listener = socket::bind(dir.path()).unwrap();
    let newer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        write_frame(&mut stream, &Reply::Hello(Hello { protocol: PROTOCOL + 1 })).unwrap();
    });
    match Client::connect(dir.path()) {
        Err(ConnectError::Failed(failure)) => assert_eq!(failure.code, Code::OtherVersion),
        other => panic!("{other:?}"),
    }
    newer.join().unwrap();
}

#[test]
fn garbage_ends_one_conversation_and_no_other() {
    let world = world();
    let mut client = world.client();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\xff\xff\xff\xff", b"\0\0\0\x02{}", b""] {
        let mut stream = world.raw();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // The end comes, with or without a word before it, and never an answer.
        while let Ok(reply) = read_frame::<Reply>(&mut stream) {
            assert!(!matches!(reply, Reply::Answer(_)));
        }
    }
    // A request that makes no sense, after a good beginning, is answered.
    let mut stream = world.raw();
    write_frame(&mut stream, &Hello { protocol: PROTOCOL }).unwrap();
    let _: Reply = read_frame(&mut stream).unwrap();
    write_frame(&mut stream, &"dance").unwrap();
    match read_frame::<Reply>(&mut stream).unwrap() {
        Reply::Failed(failure) => assert_eq!(failure.code, Code::Usage),
        other => panic!("{other:?}"),
    }
    assert_eq!(quietly(&mut client, &Request::Ping), Ok(Response::Done));
}

#[test]
fn a_panic_in_the_service_ends_one_conversation_and_no_other() {
    let world = world();
    let failure = quietly(&mut world.client(), &Request::Conflicts).unwrap_err();
    assert_eq!(failure.code, Code::NoAnswer);
    assert_eq!(quietly(&mut world.client(), &Request::Ping), Ok(Response::Done));
}

#[test]
fn an_answer_over_the_limit_becomes_a_failure() {
    let world = world();
    let mut client = world.client();
    let failure = quietly(&mut client, &Request::Export { dest: "/x".into() }).unwrap_err();
    assert_eq!(failure.code, Code::Internal);
    assert_eq!(quietly(&mut client, &Request::Ping), Ok(Response::Done));
}

#[test]
fn closing_lets_the_last_answer_through_and_takes_the_socket_away() {
    let mut world = world();
    let idle = world.client();
    let mut slow = world.client();
    let waiting =
        std::thread::spawn(move || quietly(&mut slow, &Request::Verify { repair: false }));
    world.entered.recv_timeout(Duration::from_secs(20)).unwrap();
    let server = world.server.take().unwrap();
    let closing = std::thread::spawn(move || server.close());
    // The socket goes first: nobody new gets in while the last answers are on their way.
    let path = world.dir.path().join(SOCKET_NAME);
    let deadline = Instant::now() + Duration::from_secs(20);
    while path.exists() {
        assert!(Instant::now() < deadline, "the socket stays");
        std::thread::yield_now();
    }
    assert!(matches!(Client::connect(world.dir.path()), Err(ConnectError::NobodyListens)));
    world.go.send(()).unwrap();
    assert_eq!(waiting.join().unwrap(), Ok(Response::Done));
    closing.join().unwrap();
    drop(idle);
    assert_eq!(world.fake.handled.load(Ordering::SeqCst), 1);
}

#[test]
fn a_store_deeper_than_a_socket_address_works() {
    let below = ["a-rather-long-folder-name-of-forty-bytes"; 5].join("/");
    let world = world_in(tempfile::tempdir().unwrap(), &below);
    let store = world.dir.path().join(&below);
    assert!(store.as_os_str().len() > 200);
    let mut client = Client::connect(&store).unwrap();
    assert_eq!(quietly(&mut client, &Request::Ping), Ok(Response::Done));
}

#[test]
fn a_dead_daemons_socket_makes_room_and_nobody_listening_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Client::connect(dir.path()), Err(ConnectError::NobodyListens)));
    drop(socket::bind(dir.path()).unwrap());
    assert!(dir.path().join(SOCKET_NAME).exists(), "the dead one's socket is still there");
    assert!(matches!(Client::connect(dir.path()), Err(ConnectError::NobodyListens)));
    let world = world_in(dir, "");
    assert_eq!(quietly(&mut world.client(), &Request::Ping), Ok(Response::Done));
}
