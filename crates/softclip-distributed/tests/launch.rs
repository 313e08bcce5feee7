//! The launcher: what it starts, what it tells, and that nothing stays behind. Each launch is a process of its own, which the test can
//! send signals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "ranks/child.rs"]
mod child;

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use child::output;
use rustix::process::{Pid, Signal, kill_process};
use softclip_distributed::tch::{Device, Tensor};
use softclip_distributed::{Environment, LaunchOptions, World, die_with_launcher, launch};

/// By this variable a process of this binary knows that it is the launcher: it holds the script for each rank.
const SCRIPT: &str = "SOFTCLIP_TEST_SCRIPT";
/// Processes are found by the value of this one.
const MARK: &str = "SOFTCLIP_TEST_MARK";

struct Launch {
    ranks: usize,
    restarts: u32,
    grace: Duration,
    mark: String,
    /// Starts the launcher in place of the test.
    program: Option<&'static str>,
}

impl Launch {
    fn new(test: &str, ranks: usize) -> Self {
        let mark = format!("{test}-{}", std::process::id());
        Launch { ranks, restarts: 0, grace: Duration::from_secs(5), mark, program: None }
    }

    fn start(&self, script: &str) -> Child {
        let me = std::env::current_exe().unwrap();
        let mut command = Command::new(self.program.map_or(me.as_os_str(), std::ffi::OsStr::new));
        command
            .args(self.program.map(|_| &me))
            .args(["--exact", "as_launcher", "--nocapture", "--test-threads=1"])
            .env(SCRIPT, script)
            .env(MARK, &self.mark)
            .env("SOFTCLIP_TEST_OPTIONS", format!("{} {} {}", self.ranks, self.restarts, self.grace.as_millis()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Standard output and error of a launch, after which nothing with its mark may be left.
    fn finish(&self, child: Child) -> (String, String) {
        let Output { status, stdout, stderr } = output(child);
        let [out, err] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(status.success(), "{status}: {out}\n{err}");
        assert!(err.contains("children left: 0"), "{err}");
        assert_eq!(marked(&self.mark), Vec::<String>::new());
        (out, err)
    }

    fn run(&self, script: &str) -> (String, String) {
        self.finish(self.start(script))
    }
}

/// Processes whose environment has the mark.
fn marked(mark: &str) -> Vec<String> {
    let entry = format!("{MARK}={mark}");
    let has = |path: &std::path::Path| {
        fs::read(path.join("environ")).is_ok_and(|e| e.split(|b| *b == 0).any(|v| v == entry.as_bytes()))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(|path| has(path));
    processes
        .map(|path| format!("{}: {}", path.display(), fs::read_to_string(path.join("cmdline")).unwrap_or_default()))
        .collect()
}

fn wait_for(mut what: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < until, "it never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn as_launcher() {
    let Ok(script) = std::env::var(SCRIPT) else { return };
    let numbers: Vec<u64> = std::env::var("SOFTCLIP_TEST_OPTIONS").unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
    let mut options = LaunchOptions::new(numbers[0] as usize, ["sh", "-c", &script].map(Into::into).to_vec());
    options.max_restarts = numbers[1] as u32;
    options.grace = Duration::from_millis(numbers[2]);
    match launch(&options) {
        Ok(outcome) => eprintln!("outcome: {outcome:?}"),
        Err(error) => eprintln!("error: {error}"),
    }
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let children: String = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
    eprintln!("children left: {}", children.split_whitespace().count());
    if std::env::var_os("SOFTCLIP_TEST_TWICE").is_some() {
        let before = open_files();
        launch(&options).unwrap();
        eprintln!("files: {before} {}", open_files());
    }
    std::process::exit(0);
}

#[test]
fn ranks_know_their_places_and_write_with_prefixes() {
    let launch = Launch::new("places", 3);
    let script = "echo out $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $TORCHELASTIC_USE_AGENT_STORE; \
        echo err $RANK $TORCHELASTIC_RESTART_COUNT >&2; printf 'no end %s' $RANK >&2";
    let (out, err) = launch.run(script);
    assert!(err.contains("outcome: Done"), "{err}");
    // Rank 0's standard output is ours, without a prefix; all else is on standard error.
    assert!(out.contains(" out 0 0 3 3 127.0.0.1 True\n") && !out.contains("out 1"), "{out}");
    for line in ["[1] out 1 1 3 3 127.0.0.1 True", "[2] out 2 2 3 3 127.0.0.1 True"] {
        assert!(err.lines().any(|l| l == line), "{err}");
    }
    for rank in 0..3 {
        assert!(err.lines().any(|l| l == format!("[{rank}] err {rank} 0")), "{err}");
        assert!(err.lines().any(|l| l == format!("[{rank}] no end {rank}")), "{err}");
    }
}

#[test]
fn ranks_meet_and_count_each_other() {
    if std::env::var_os(MARK).is_some() {
        let environment = Environment::from_env().unwrap();
        let world = World::join(&environment, Device::Cpu, Duration::from_secs(60)).unwrap();
        let one = Tensor::from_slice(&[1i64]);
        world.group().unwrap().all_reduce(&one, softclip_torch::Reduce::Sum).unwrap();
        println!("{} of {} after {}", one.int64_value(&[0]), world.size(), environment.restart);
        return;
    }
    let mut launch = Launch::new("meet", 3);
    launch.restarts = 1;
    let me = std::env::current_exe().unwrap();
    let again = format!("{} --exact ranks_meet_and_count_each_other --nocapture", me.display());
    // The first start fails after the ranks have met: the second must not meet what that one left. Only rank 0 fails, whose output is
    // looked at: any other might be quicker, and end it before it has written.
    let (out, err) = launch.run(&format!(
        "unset {SCRIPT}; {again} || exit 9; [ $TORCHELASTIC_RESTART_COUNT = 1 ] && exit 0; [ $RANK = 0 ] && exit 1; exec sleep 300"
    ));
    assert!(out.contains("3 of 3 after 0") && out.contains("3 of 3 after 1"), "{out}\n{err}");
    assert!(err.contains("outcome: Done") && err.contains("restart 1 of 1"), "{err}");
}

#[test]
fn one_that_fails_ends_the_others_and_is_named() {
    let launch = Launch::new("fails", 3);
    let start = Instant::now();
    let script = "if [ $RANK = 1 ]; then echo the reason >&2; exit 7; fi; exec sleep 300";
    let (_, err) = launch.run(script);
    assert!(err.contains("rank: 1") && err.contains("\"the reason\"") && err.contains("unix_wait_status(1792)"), "{err}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn one_that_a_signal_ends_is_named() {
    let (_, err) = Launch::new("killed", 2).run("if [ $RANK = 1 ]; then kill -9 $$; fi; exec sleep 300");
    assert!(err.contains("rank: 1") && err.contains("unix_wait_status(9)"), "{err}");
}

#[test]
fn the_one_that_lost_its_peer_is_not_blamed() {
    // Rank 0 ends first, because rank 1 is gone for it; rank 1 takes longer to end, at times until after SIGTERM has come.
    let lost = softclip_torch::PEER_LOST;
    for delay in ["0", "1"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid").display().to_string();
        let script = format!(
            "if [ $RANK = 0 ]; then echo $$ > {file}.new; mv {file}.new {file}; echo 'error: rank 0, all_reduce: {lost}' >&2; exit 1; fi
            trap '' TERM
            until [ -e {file} ]; do sleep 0.02; done
            while kill -0 $(cat {file}) 2>&-; do sleep 0.02; done
            sleep {delay}; exit 3"
        );
        let mut launch = Launch::new(&format!("blame{delay}"), 2);
        launch.grace = Duration::from_secs(60);
        let (_, err) = launch.run(&script);
        assert!(err.contains("rank: 1") && err.contains("unix_wait_status(768)"), "{err}");
    }
}

#[test]
fn one_that_does_not_heed_sigterm_is_killed_after_the_grace() {
    let mut launch = Launch::new("stubborn", 2);
    launch.grace = Duration::from_millis(300);
    let start = Instant::now();
    // With a process of its own, which must not stay either.
    let script = "if [ $RANK = 1 ]; then exit 1; fi; trap '' TERM; sleep 300 & wait; sleep 300";
    let (_, err) = launch.run(script);
    assert!(err.contains("rank: 1"), "{err}");
    assert!(start.elapsed() > launch.grace && start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn what_a_rank_leaves_behind_ends_with_it() {
    let start = Instant::now();
    let (_, err) = Launch::new("behind", 2).run("sleep 300 & echo gone");
    assert!(err.contains("outcome: Done") && err.contains("[1] gone"), "{err}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn restarts_are_counted_and_end() {
    let mut launch = Launch::new("restarts", 2);
    launch.restarts = 2;
    let (_, err) = launch.run("echo start $RANK $TORCHELASTIC_RESTART_COUNT >&2; [ $RANK = 0 ] || exit 4; exec sleep 300");
    for count in 0..3 {
        assert!(err.contains(&format!("[1] start 1 {count}")), "{err}");
    }
    assert!(!err.contains("start 1 3") && err.contains("[launch] restart 2 of 2") && err.contains("restarts: 2"), "{err}");
}

#[test]
fn signals_go_on_to_all_ranks() {
    // Under nohup a hangup goes nowhere, here as elsewhere.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let nohup = u64::from_str_radix(ignored, 16).unwrap() & 1 == 1;
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::QUIT, 3), (Signal::HUP, 1)] {
        if nohup && signal == Signal::HUP {
            continue;
        }
        let mut launch = Launch::new(&format!("signal{number}"), 2);
        launch.restarts = 3;
        let folder = tempfile::tempdir().unwrap();
        let ready = |rank| folder.path().join(format!("ready{rank}"));
        // As training does: a signal makes it finish what it does, and end with 130.
        let script = format!(
            "trap 'echo caught $RANK >&2; sleep 0.2; exit 130' TERM INT QUIT HUP; touch {}/ready$RANK; while :; do sleep 0.02; done",
            folder.path().display()
        );
        let child = launch.start(&script);
        wait_for(|| ready(0).exists() && ready(1).exists());
        kill_process(Pid::from_child(&child), signal).unwrap();
        let (_, err) = launch.finish(child);
        assert!(err.contains(&format!("outcome: Interrupted({number})")), "{err}");
        assert!(err.contains("[0] caught 0") && err.contains("[1] caught 1") && !err.contains("restart "), "{err}");
    }
}

#[test]
fn a_rank_that_fails_after_a_signal_is_reported() {
    let lost = softclip_torch::PEER_LOST;
    for (failing, expected) in [("exit 1", "Failed(Failure { rank: 1"), ("exit 130", "outcome: Interrupted(15)")] {
        let mut launch = Launch::new(&format!("unsaved{}", failing.len()), 2);
        launch.restarts = 3;
        let folder = tempfile::tempdir().unwrap();
        // Rank 1 cannot write its checkpoint, or can; rank 0 only lost its peer.
        let script = format!(
            "trap '[ $RANK = 1 ] && {failing}; echo \"error: {lost}\" >&2; exit 1' TERM
            touch {}/ready$RANK; while :; do sleep 0.02; done",
            folder.path().display()
        );
        let child = launch.start(&script);
        wait_for(|| (0..2).all(|rank| folder.path().join(format!("ready{rank}")).exists()));
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let (_, err) = launch.finish(child);
        assert!(err.contains(expected) && !err.contains("restart 1"), "{err}");
    }
}

#[test]
fn repeated_hangups_of_a_closed_terminal_leave_the_ranks_their_time() {
    let mut launch = Launch::new("hangups", 2);
    launch.grace = Duration::from_millis(100);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let script = format!(
        "trap 'touch {path}/caught$RANK' HUP; touch {path}/ready$RANK; until [ -e {path}/go ]; do sleep 0.02; done; exit 130"
    );
    let child = launch.start(&script);
    let all = |name: &str| (0..2).all(|rank| folder.path().join(format!("{name}{rank}")).exists());
    wait_for(|| all("ready"));
    let hangup = || kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    hangup();
    if softclip_distributed::is_ignored(1) {
        fs::write(folder.path().join("go"), "").unwrap();
        launch.finish(child);
        return;
    }
    wait_for(|| all("caught"));
    hangup();
    std::thread::sleep(Duration::from_millis(400));
    fs::write(folder.path().join("go"), "").unwrap();
    let (_, err) = launch.finish(child);
    assert!(err.contains("outcome: Interrupted(1)"), "{err}");
}

#[test]
fn a_hangup_that_is_ignored_stays_so() {
    let mut launch = Launch::new("nohup", 2);
    launch.program = Some("nohup");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let child = launch.start(&format!("touch {path}/ready$RANK; until [ -e {path}/go ]; do sleep 0.02; done"));
    wait_for(|| (0..2).all(|rank| folder.path().join(format!("ready{rank}")).exists()));
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    // Were it handed on, it would be within this time; if the machine is too busy for that, nothing is shown, and nothing fails.
    std::thread::sleep(Duration::from_millis(300));
    fs::write(folder.path().join("go"), "").unwrap();
    let (_, err) = launch.finish(child);
    assert!(err.contains("outcome: Done") && !err.contains("goes on"), "{err}");
}

#[test]
fn a_second_signal_does_not_wait_for_ever() {
    let mut launch = Launch::new("twice", 2);
    launch.grace = Duration::from_millis(300);
    let folder = tempfile::tempdir().unwrap();
    let script = format!("trap '' TERM; touch {}/ready$RANK; while :; do sleep 0.02; done", folder.path().display());
    let mut child = launch.start(&script);
    wait_for(|| (0..2).all(|rank| folder.path().join(format!("ready{rank}")).exists()));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    // One signal leaves them all the time they want.
    assert!(child.try_wait().unwrap().is_none());
    // The first may not have been taken yet, and then two are one.
    wait_for(|| {
        let ended = child.try_wait().unwrap().is_some();
        if !ended {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            std::thread::sleep(Duration::from_millis(500));
        }
        ended
    });
    let (_, err) = launch.finish(child);
    assert!(err.contains("outcome: Interrupted(15)"), "{err}");
}

#[test]
fn a_launcher_that_is_killed_takes_its_ranks_with_it() {
    if std::env::var_os(MARK).is_some() {
        let _world = World::join(&Environment::from_env().unwrap(), Device::Cpu, Duration::from_secs(60)).unwrap();
        fs::write(std::env::var("READY").unwrap() + &std::env::var("RANK").unwrap(), "").unwrap();
        std::thread::sleep(Duration::from_secs(300));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::new("orphans", 2);
    let me = std::env::current_exe().unwrap();
    let ready = folder.path().join("ready");
    let test = "a_launcher_that_is_killed_takes_its_ranks_with_it";
    let script = format!("unset {SCRIPT}; export READY={}; exec {} --exact {test}", ready.display(), me.display());
    let mut child = launch.start(&script);
    wait_for(|| (0..2).all(|rank| folder.path().join(format!("ready{rank}")).exists()));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(|| marked(&launch.mark).is_empty());
}

#[test]
fn a_rank_that_finds_its_launcher_gone_ends() {
    if std::env::var_os(MARK).is_some() {
        die_with_launcher();
        std::process::exit(40);
    }
    let mut launcher = Command::new("true").spawn().unwrap();
    launcher.wait().unwrap();
    // A rank leads a group; what it starts does not, and is not the launcher's to end.
    for (leads, expected) in [(true, (None, Some(15))), (false, (Some(40), None))] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_rank_that_finds_its_launcher_gone_ends", "--nocapture"]);
        command.env(MARK, "gone").env("SOFTCLIP_LAUNCHER_PID", launcher.id().to_string());
        if leads {
            command.process_group(0);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let status = output(child).status;
        assert_eq!((status.code(), status.signal()), expected);
    }
}

#[test]
fn a_command_that_is_not_there_is_an_error() {
    let missing = LaunchOptions::new(2, vec!["/no/such/program".into()]);
    let text = launch(&missing).unwrap_err().to_string();
    assert!(text.contains("cannot start /no/such/program"), "{text}");
    assert!(launch(&LaunchOptions::new(0, vec!["true".into()])).is_err());
    assert!(launch(&LaunchOptions::new(1, Vec::new())).is_err());
}

#[test]
fn no_socket_stays_open() {
    let launch = Launch::new("sockets", 2);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "as_launcher", "--nocapture"]).env(SCRIPT, "true").env("SOFTCLIP_TEST_TWICE", "1");
    command.env("SOFTCLIP_TEST_OPTIONS", format!("{} 0 1000", launch.ranks));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let err = String::from_utf8(output(child).stderr).unwrap();
    let files: Vec<_> = err.split("files: ").nth(1).unwrap().split_whitespace().collect();
    assert_eq!(files[0], files[1], "{err}");
}
