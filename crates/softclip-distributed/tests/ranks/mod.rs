//! Several ranks by starting the test's own binary again: there is no other way to have several processes of one test.
#![allow(dead_code)] // Not every file of tests uses all of it.

mod launchers;

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use softclip_distributed::tch;
use softclip_distributed::{Environment, World};
use softclip_torch::Store;

use self::launchers::LAUNCHERS;

/// How long an operation may wait for a peer.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// The status of a rank whose body came to its end: a test binary that found no such test would end with 0.
pub const DONE: i32 = 40;

/// By this variable a process of this binary knows that it is a rank, and of how many: launchers' own may be set where tests run.
const RANKS: &str = "SOFTCLIP_TEST_RANKS";

/// How a rank ended.
pub struct Ended {
    pub code: Option<i32>,
    pub output: String,
}

/// Runs `body` in `n` ranks on the CPU; must be called from the test of this very name. In a rank it does not return.
pub fn run(test: &str, n: usize, timeout: Duration, body: impl Fn(&World)) -> Vec<Ended> {
    run_on("cpu", test, n, timeout, body)
}

/// As [`run`], on the devices of that name.
pub fn run_on(device: &str, test: &str, n: usize, timeout: Duration, body: impl Fn(&World)) -> Vec<Ended> {
    if let Ok(size) = std::env::var(RANKS) {
        if size == n.to_string() {
            as_rank(device, timeout, body);
        }
        // A rank of another call of the same test.
        return Vec::new();
    }
    let store = Store::host("127.0.0.1", 0, TIMEOUT).unwrap();
    let ranks: Vec<_> = (0..n).map(|rank| start(test, rank, n, store.port().unwrap())).collect();
    ranks.into_iter().map(finish).collect()
}

/// As [`run`], where every rank must succeed.
pub fn all_succeed(test: &str, n: usize, body: impl Fn(&World)) {
    all_succeed_on("cpu", test, n, body);
}

/// As [`run_on`], where every rank must succeed.
pub fn all_succeed_on(device: &str, test: &str, n: usize, body: impl Fn(&World)) {
    for (rank, ended) in run_on(device, test, n, TIMEOUT, body).iter().enumerate() {
        assert_eq!(ended.code, Some(DONE), "rank {rank} of {n}:\n{}", ended.output);
    }
}

fn as_rank(device: &str, timeout: Duration, body: impl Fn(&World)) -> ! {
    tch::set_num_threads(1);
    let environment = Environment::from_env().unwrap();
    let world = World::join(&environment, environment.device(device).unwrap(), timeout).unwrap();
    body(&world);
    drop(world);
    std::process::exit(DONE)
}

fn start(test: &str, rank: usize, n: usize, port: u16) -> (Child, JoinHandle<String>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in LAUNCHERS {
        command.env_remove(name);
    }
    let mut child = command
        .env(RANKS, n.to_string())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .envs([("RANK", rank.to_string()), ("WORLD_SIZE", n.to_string()), ("MASTER_PORT", port.to_string())])
        .env("LOCAL_RANK", rank.to_string())
        .envs([("MASTER_ADDR", "127.0.0.1"), ("TORCHELASTIC_USE_AGENT_STORE", "True"), ("OMP_NUM_THREADS", "1")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    // From the start: a rank that writes more than a pipe holds must not wait for us.
    let output = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    (child, output)
}

fn finish((mut child, output): (Child, JoinHandle<String>)) -> Ended {
    let until = Instant::now() + Duration::from_secs(120);
    while child.try_wait().unwrap().is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    Ended { code: child.wait().unwrap().code(), output: output.join().unwrap() }
}
