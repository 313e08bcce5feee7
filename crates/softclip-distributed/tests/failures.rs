//! Ranks that die, hang or never come: the others get an error, and soon.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ranks;

use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use softclip_distributed::tch::{Device, Kind, Tensor};
use softclip_distributed::{Environment, Master, World};
use softclip_torch::{Backend, BucketSizes, Ddp, Error, Peers, ProcessGroup, Reduce, Store};

fn ones(n: i64) -> Tensor {
    Tensor::ones([n], (Kind::Float, Device::Cpu))
}

/// Soon: well before an operation's time-out, on a loaded machine too.
const SOON: Duration = Duration::from_secs(60);

/// Ends this process at once. Abort would write a core first, for which the others might wait.
fn die() {
    kill_process(getpid(), Signal::KILL).unwrap();
}

/// Rank 0 of `n`, and those after the first, must end well; rank 1 is the one that misbehaves.
fn others_succeed(ended: &[ranks::Ended]) {
    for (rank, one) in ended.iter().enumerate().filter(|(rank, _)| *rank != 1) {
        assert_eq!(one.code, Some(ranks::DONE), "rank {rank}:\n{}", one.output);
    }
}

#[test]
fn a_peer_that_is_killed_is_an_error_at_once() {
    for n in [2, 4] {
        let ended = ranks::run("a_peer_that_is_killed_is_an_error_at_once", n, ranks::TIMEOUT, |world| {
            world.barrier().unwrap();
            if world.rank() == 1 {
                die();
            }
            let start = Instant::now();
            // The first may still go through, if the others are quicker than the end of rank 1.
            let group = world.group().unwrap();
            let error = (0..100).find_map(|_| group.all_reduce(&ones(1000), Reduce::Sum).err()).unwrap();
            assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
            assert!(matches!(error, Error::Group { operation: "all_reduce", peers: Peers::Lost, .. }), "{error}");
            let text = error.to_string();
            let expected = format!("rank {} of {n}, all_reduce: a peer has ended", world.rank());
            assert!(text.starts_with(&expected), "{text}");
            let text = group.barrier().unwrap_err().to_string();
            assert!(text.contains("no longer usable since its all_reduce failed"), "{text}");
            assert!(world.all_ok(true).is_err());
        });
        others_succeed(&ended);
        // Empty in a rank of the other count.
        assert!(ended.get(1).is_none_or(|rank| rank.code.is_none()), "rank 1 was to be ended by a signal");
    }
}

#[test]
fn a_peer_that_is_killed_during_backward_is_an_error_of_backward() {
    let ended = ranks::run("a_peer_that_is_killed_during_backward_is_an_error_of_backward", 2, ranks::TIMEOUT, |world| {
        let w = ones(8).set_requires_grad(true);
        let mut ddp = Ddp::new(world.group().unwrap(), &[("w".into(), w.shallow_clone())], BucketSizes::default()).unwrap();
        ddp.prepare_for_forward().unwrap();
        let loss = w.square().sum(Kind::Float);
        if world.rank() == 1 {
            die();
        }
        let start = Instant::now();
        let text = ddp.backward(|| loss.f_backward()).unwrap_err().to_string();
        assert!(text.starts_with("rank 0 of 2, backward: a peer has ended"), "{text}");
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    });
    others_succeed(&ended);
}

#[test]
fn a_peer_that_hangs_is_an_error_by_the_time_out() {
    // Joining has to be done in this time as well.
    let timeout = Duration::from_secs(10);
    let ended = ranks::run("a_peer_that_hangs_is_an_error_by_the_time_out", 2, timeout, |world| {
        let port = std::env::var("MASTER_PORT").unwrap().parse().unwrap();
        let store = Store::connect("127.0.0.1", port, timeout).unwrap();
        world.barrier().unwrap();
        if world.rank() == 1 {
            // Until rank 0 has seen what it is to see.
            store.wait("seen", Duration::from_secs(60)).unwrap();
            return;
        }
        let start = Instant::now();
        let error = world.group().unwrap().all_gather(&ones(10)).unwrap_err();
        assert!(matches!(error, Error::Group { operation: "all_gather", peers: Peers::Late, .. }), "{error}");
        assert!(error.to_string().contains("did not take part in time"), "{error}");
        assert!(start.elapsed() >= timeout * 9 / 10 && start.elapsed() < timeout * 6, "{:?}", start.elapsed());
        let again = Instant::now();
        assert!(world.barrier().is_err() && again.elapsed() < timeout / 2);
        store.set("seen", b"").unwrap();
    });
    others_succeed(&ended);
}

#[test]
fn a_peer_that_never_comes_is_an_error_of_joining() {
    let store = Store::host("127.0.0.1", 0, ranks::TIMEOUT).unwrap();
    let start = Instant::now();
    let error = ProcessGroup::new(&store, 0, 2, &Backend::loopback(), Duration::from_millis(500)).err().unwrap();
    let text = error.to_string();
    assert!(text.starts_with("rank 0 of 2, joining the group: a peer did not take part in time"), "{text}");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn no_master_is_an_error_that_names_the_place() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut environment = Environment { rank: 1, world_size: 2, ..Environment::alone() };
    environment.master = Some(Master { address: "127.0.0.1".into(), port });
    let start = Instant::now();
    let error = World::join(&environment, Device::Cpu, Duration::from_millis(300)).err().unwrap().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("MASTER_ADDR"), "{error}");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn rank_0_hosts_the_store_where_no_launcher_does() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Threads will do for ranks that do not fail. Rank 1 comes first, and waits.
    let join = move |rank: u64| {
        std::thread::sleep(Duration::from_millis(300 * (1 - rank)));
        let mut environment = Environment { rank: rank as usize, world_size: 2, ..Environment::alone() };
        environment.master = Some(Master { address: "localhost".into(), port });
        let world = World::join(&environment, Device::Cpu, ranks::TIMEOUT).unwrap();
        let t = ones(2);
        world.group().unwrap().all_reduce(&t, Reduce::Sum).unwrap();
        // Rank 0 ends first, and the store with it.
        std::thread::sleep(Duration::from_millis(200 * rank));
        t.double_value(&[1])
    };
    let both = [1, 0].map(|rank| std::thread::spawn(move || join(rank))).map(|thread| thread.join().unwrap());
    assert_eq!(both, [2.0, 2.0]);
}

#[test]
fn what_cannot_be_is_refused() {
    let store = Store::host("127.0.0.1", 0, ranks::TIMEOUT).unwrap();
    let join = |rank, size, backend: &Backend| ProcessGroup::new(&store, rank, size, backend, ranks::TIMEOUT);
    assert!(join(2, 2, &Backend::loopback()).err().unwrap().to_string().contains("rank 2 of 2"));
    assert!(join(0, 1, &Backend::Gloo(Some("no.such.host.invalid".into()))).is_err());
    // A group of one is a group.
    let group = join(0, 1, &Backend::loopback()).unwrap();
    let t = ones(3);
    group.all_reduce(&t, Reduce::Mean).unwrap();
    assert_eq!((group.size(), t), (1, ones(3)));
}
