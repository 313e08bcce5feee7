//! Every operation among 2 and 4 ranks, against numbers computed by hand.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ranks;

use softclip_distributed::World;
use softclip_distributed::tch::{Device, Kind, Tensor};
use softclip_torch::{Error, Peers, ProcessGroup, Reduce};

const KINDS: [Kind; 4] = [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Int64];

fn group(world: &World) -> &ProcessGroup {
    world.group().unwrap()
}

/// Small whole numbers, which every kind holds exactly.
fn numbers(values: &[i64], kind: Kind) -> Tensor {
    Tensor::from_slice(values).to_kind(kind)
}

fn values(t: &Tensor) -> Vec<i64> {
    Vec::<i64>::try_from(t.to_kind(Kind::Int64).reshape([-1])).unwrap()
}

#[test]
fn reductions_are_right_in_every_kind() {
    for n in [2, 4] {
        ranks::all_succeed("reductions_are_right_in_every_kind", n, |world| {
            let (r, n) = (world.rank() as i64, n as i64);
            for kind in KINDS {
                // Rank r has [r + 1, 10 - r, -2 r].
                let reduced = |reduce| {
                    let t = numbers(&[r + 1, 10 - r, -2 * r], kind);
                    group(world).all_reduce(&t, reduce).unwrap();
                    assert_eq!(t.kind(), kind);
                    values(&t)
                };
                let pairs = n * (n - 1) / 2;
                assert_eq!(reduced(Reduce::Sum), [pairs + n, 10 * n - pairs, -2 * pairs], "{kind:?}");
                assert_eq!(reduced(Reduce::Max), [n, 10, 0], "{kind:?}");
                assert_eq!(reduced(Reduce::Min), [1, 11 - n, 2 - 2 * n], "{kind:?}");
                assert_eq!(reduced(Reduce::Product)[0], (1..=n).product::<i64>(), "{kind:?}");
                if kind == Kind::Int64 {
                    let t = numbers(&[1], kind);
                    let text = group(world).all_reduce(&t, Reduce::Mean).unwrap_err().to_string();
                    assert!(text.contains("all_reduce") && text.contains("Int64"), "{text}");
                } else {
                    let t = numbers(&[4 * r, 8], kind);
                    group(world).all_reduce(&t, Reduce::Mean).unwrap();
                    assert_eq!(values(&t), [2 * (n - 1), 8], "{kind:?}");
                }
            }
        });
    }
}

#[test]
fn rows_are_gathered_in_the_order_of_ranks_and_shared_out_again() {
    for n in [2, 4] {
        ranks::all_succeed("rows_are_gathered_in_the_order_of_ranks_and_shared_out_again", n, |world| {
            let (r, n) = (world.rank() as i64, n as i64);
            for kind in KINDS {
                // Rank r has the rows [[10 r, 10 r + 1], [10 r + 2, 10 r + 3], [10 r + 4, 10 r + 5]].
                let mine = numbers(&(0..6).map(|i| 10 * r + i).collect::<Vec<_>>(), kind).view([3, 2]);
                let all = group(world).all_gather(&mine).unwrap();
                assert_eq!((all.size(), all.kind()), (vec![3 * n, 2], kind));
                let expected: Vec<i64> = (0..n).flat_map(|q| (0..6).map(move |i| 10 * q + i)).collect();
                assert_eq!(values(&all), expected, "{kind:?}");
                // Every rank gives (r + 1) times 0, 1, …: the sum is 1 + … + n times that.
                let input = numbers(&(0..2 * n).map(|i| (r + 1) * i).collect::<Vec<_>>(), kind).view([2 * n, 1]);
                let part = group(world).reduce_scatter(&input).unwrap();
                assert_eq!(part.size(), [2, 1]);
                let times = n * (n + 1) / 2;
                assert_eq!(values(&part), [times * 2 * r, times * (2 * r + 1)], "{kind:?}");
                assert_eq!(values(&input)[1], r + 1, "the input stays as it was");
            }
        });
    }
}

#[test]
fn one_ranks_numbers_reach_all() {
    for n in [2, 4] {
        ranks::all_succeed("one_ranks_numbers_reach_all", n, |world| {
            for kind in KINDS {
                for root in 0..n {
                    let t = numbers(&[world.rank() as i64, 7], kind);
                    group(world).broadcast(&t, root).unwrap();
                    assert_eq!(values(&t), [root as i64, 7], "{kind:?}");
                }
            }
            assert!(group(world).broadcast(&numbers(&[1], Kind::Float), n).unwrap_err().to_string().contains("not among"));
        });
    }
}

#[test]
fn a_barrier_holds_all_until_the_last_comes() {
    let late = std::time::Duration::from_millis(300);
    ranks::all_succeed("a_barrier_holds_all_until_the_last_comes", 2, |world| {
        // Before the first barrier: rank 1 may leave it, and even have slept, before this rank runs again.
        let start = std::time::Instant::now();
        world.barrier().unwrap();
        if world.rank() == 1 {
            std::thread::sleep(late);
        }
        world.barrier().unwrap();
        assert!(start.elapsed() >= late * 9 / 10, "{:?}", start.elapsed());
    });
}

#[test]
fn operations_may_overlap() {
    ranks::all_succeed("operations_may_overlap", 2, |world| {
        let tensors: Vec<_> = (0..8).map(|i| numbers(&[i; 1000], Kind::Float)).collect();
        let works: Vec<_> = tensors.iter().map(|t| group(world).start_all_reduce(t, Reduce::Sum).unwrap()).collect();
        let dropped = numbers(&[3; 1000], Kind::Float);
        drop(group(world).start_all_reduce(&dropped, Reduce::Sum).unwrap());
        assert_eq!(values(&dropped)[999], 6);
        for (i, work) in works.into_iter().enumerate() {
            assert_eq!(values(&work.wait().unwrap())[0], 2 * i as i64);
        }
        let gathered = group(world).start_all_gather(&tensors[1]).unwrap();
        let gathered_too = gathered.wait().unwrap();
        assert_eq!((gathered_too.size(), values(&gathered_too)[1999]), (vec![2000], 2));
    });
}

#[test]
fn tensors_that_cannot_be_sent_are_refused_before_anything_is_sent() {
    ranks::all_succeed("tensors_that_cannot_be_sent_are_refused_before_anything_is_sent", 2, |world| {
        let group = group(world);
        let zeros = |kind| Tensor::zeros([4, 2], (kind, Device::Cpu));
        let refused = [
            (Tensor::new(), "undefined"),
            (zeros(Kind::Bool), "Bool"),
            (zeros(Kind::ComplexFloat), "ComplexFloat"),
            (zeros(Kind::Float).tr(), "contiguous"),
            (zeros(Kind::Float).to_sparse_sparse_dim(2), "sparse"),
        ];
        for (tensor, expected) in refused {
            for error in [
                group.all_reduce(&tensor, Reduce::Sum).unwrap_err(),
                group.broadcast(&tensor, 0).unwrap_err(),
                group.all_gather(&tensor).unwrap_err(),
                group.reduce_scatter(&tensor).unwrap_err(),
            ] {
                assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains(expected), "{error}");
            }
        }
        assert!(group.all_gather(&Tensor::from(1.0)).unwrap_err().to_string().contains("no rows"));
        let text = group.reduce_scatter(&zeros(Kind::Float).narrow(0, 0, 3)).unwrap_err().to_string();
        assert!(text.contains("3 rows") && text.contains("2 ranks"), "{text}");
        // The group is none the worse for it; and tensors without elements cost nothing.
        let empty = Tensor::zeros([0, 3], (Kind::Float, Device::Cpu));
        group.all_reduce(&empty, Reduce::Sum).unwrap();
        assert_eq!(group.all_gather(&empty).unwrap().size(), [0, 3]);
        let one = numbers(&[1], Kind::Float);
        group.all_reduce(&one, Reduce::Sum).unwrap();
        assert_eq!(values(&one), [2]);
    });
}

#[test]
fn a_world_gathers_averages_and_agrees() {
    for n in [2, 4] {
        ranks::all_succeed("a_world_gathers_averages_and_agrees", n, |world| {
            let (r, n) = (world.rank() as i64, n as i64);
            // Rank r has two rows with a 1 at r.
            let rows = Tensor::zeros([2, 8], (Kind::Float, Device::Cpu));
            let _ = rows.select(1, r).fill_(1.0);
            let all = world.gather_parts(&rows.set_requires_grad(true), 2 * world.size()).unwrap();
            assert_eq!((all.size(), all.requires_grad()), (vec![2 * n, 8], false));
            assert_eq!(values(&all.argmax(1, false)), (0..n).flat_map(|q| [q, q]).collect::<Vec<_>>());
            // Not as many on each rank.
            let part = world.part(7);
            let mine = Tensor::arange_start(part.start as i64, part.end as i64, (Kind::Float, Device::Cpu));
            assert_eq!(values(&world.gather_parts(&mine, 7).unwrap()), (0..7).collect::<Vec<_>>());
            assert!(world.gather_parts(&mine, 7 + 2 * world.size()).unwrap_err().to_string().contains("rows"));
            let largest = numbers(&[r, -r], Kind::Double);
            world.all_reduce(&largest, Reduce::Max).unwrap();
            assert_eq!(values(&largest), [n - 1, 0]);
            assert_eq!(world.total(&[1.0, r as f64]).unwrap(), [n as f64, (n * (n - 1) / 2) as f64]);
            assert_eq!(world.told(&[7 + r as u64, u64::MAX]).unwrap(), [7, u64::MAX]);
            // Several kinds and layouts in one call.
            let tensors = [
                numbers(&[2 * r, 4], Kind::Float),
                numbers(&[6 * r], Kind::Double),
                numbers(&[2 * r, 0, 0, 2], Kind::Float).view([2, 2]).tr(),
                numbers(&[4], Kind::Float).set_requires_grad(true),
            ];
            world.average(&tensors).unwrap();
            let mean = n - 1; // of 2 r
            assert_eq!(
                tensors.iter().map(values).collect::<Vec<_>>(),
                [vec![mean, 4], vec![3 * mean], vec![mean, 0, 0, 2], vec![4]]
            );
            world.broadcast(&[numbers(&[r], Kind::Int64), tensors[0].shallow_clone()]).unwrap();
            let parameter = numbers(&[r + 5], Kind::BFloat16).set_requires_grad(true);
            world.broadcast(std::slice::from_ref(&parameter)).unwrap();
            assert_eq!(values(&parameter), [5]);
            assert!(world.all_ok(true).unwrap());
            assert!(!world.all_ok(r != n - 1).unwrap());
            let mine = |ok: bool| if ok { Ok(r) } else { Err(softclip_distributed::Error::Invalid("mine".into())) };
            assert_eq!(world.all_or_none(mine(true)).unwrap(), r);
            let told = world.all_or_none(mine(r != 0)).unwrap_err().to_string();
            // Whoever has failed says why; the launcher blames no other.
            assert_eq!((told == "mine", told.contains(softclip_torch::PEER_LOST)), (r == 0, r != 0), "{told}");
        });
    }
}

#[test]
fn ranks_with_other_shapes_all_get_an_error() {
    ranks::all_succeed("ranks_with_other_shapes_all_get_an_error", 2, |world| {
        let r = world.rank() as i64;
        let rows = |n: i64| Tensor::ones([n, 4], (Kind::Float, Device::Cpu));
        let (other, group) = (1 - r, group(world));
        let text = group.all_gather(&rows(3 + r)).unwrap_err().to_string();
        let expected = format!(
            "rank {r} of 2, all_gather: the ranks do not agree on what they do (rank {other} has all_gather of [{}, 4]",
            3 + other
        );
        assert!(text.contains(&expected), "{text}");
        let t = |n| numbers(&vec![1; n as usize], Kind::Float);
        for result in [
            group.all_reduce(&t(1 + 1000 * r), Reduce::Sum),
            group.broadcast(&t(1 + r), 0),
            group.broadcast(&t(4), world.rank()),
            group.reduce_scatter(&t(2 + 2 * r)).map(drop),
            group.all_reduce(&t(4), if r == 0 { Reduce::Sum } else { Reduce::Max }),
            group.all_reduce(&numbers(&[1], if r == 0 { Kind::Int64 } else { Kind::Double }), Reduce::Sum),
            if r == 0 { group.barrier() } else { group.all_gather(&t(4)).map(drop) },
            if r == 0 { group.all_reduce(&t(0), Reduce::Sum) } else { group.all_reduce(&t(1), Reduce::Sum) },
        ] {
            assert!(matches!(result, Err(Error::Group { peers: Peers::Differ, .. })), "{result:?}");
        }
        assert!(world.average(&[numbers(&[1; 6], Kind::Float).view([2 + r, 3 - r])]).is_err());
        assert!(world.average(&[numbers(&[1], if r == 0 { Kind::Float } else { Kind::Double })]).is_err());
        // All saw it, none waits: they can go on.
        assert_eq!(group.all_gather(&rows(2)).unwrap().size(), [4, 4]);
    });
}

#[test]
fn one_process_by_itself_gets_back_what_it_gave() {
    let world = World::alone();
    let rows = Tensor::ones([2, 4], (Kind::Float, Device::Cpu));
    assert_eq!(world.gather_parts(&rows, 2).unwrap(), rows);
    assert_eq!((world.part(5), world.total(&[2.5]).unwrap(), world.told(&[3]).unwrap()), (0..5, vec![2.5], vec![3]));
    let t = numbers(&[3], Kind::Float);
    world.average(std::slice::from_ref(&t)).unwrap();
    world.broadcast(std::slice::from_ref(&t)).unwrap();
    world.barrier().unwrap();
    assert!(values(&t) == [3] && world.all_ok(true).unwrap() && !world.all_ok(false).unwrap());
    assert!((world.rank(), world.size()) == (0, 1) && world.group().is_none());
}

#[test]
fn numbers_are_gathered_however_many_each_rank_has() {
    for n in [2, 4] {
        ranks::all_succeed("numbers_are_gathered_however_many_each_rank_has", n, |world| {
            // Rank r has r numbers.
            let mine: Vec<i64> = (0..world.rank() as i64).map(|i| i64::MIN + 10 * world.rank() as i64 + i).collect();
            let all: Vec<i64> = (0..n as i64).flat_map(|rank| (0..rank).map(move |i| i64::MIN + 10 * rank + i)).collect();
            assert_eq!(world.gather_numbers(&mine).unwrap(), all);
            assert_eq!(world.gather_numbers(&[]).unwrap(), Vec::<i64>::new());
        });
    }
    assert_eq!(World::alone().gather_numbers(&[3, 1]).unwrap(), [3, 1]);
}
