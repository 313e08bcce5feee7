//! Gradients of a small network: overlapped, by the plain way, and in one process over the whole batch.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ranks;

use softclip_distributed::World;
use softclip_distributed::tch::{Device, Kind, Tensor, no_grad};
use softclip_torch::{BucketSizes, Ddp, Error, Peers, recompute};

const STEPS: i64 = 3;
const BATCH: i64 = 8;

/// Small enough for several buckets.
const BUCKETS: BucketSizes = BucketSizes { first: 64, others: 256 };

/// The same numbers in every process: no generator is asked.
fn wave(shape: &[i64], phase: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    ((Tensor::arange(n, (Kind::Float, Device::Cpu)) * 0.7 + phase).sin() * 0.5).view(shape)
}

struct Net {
    parameters: Vec<(String, Tensor)>,
}

impl Net {
    fn new(phase: f64) -> Self {
        let shapes: [(&str, &[i64]); 4] = [("w1", &[16, 6]), ("b1", &[16]), ("w2", &[3, 16]), ("b2", &[3])];
        let made = |(i, (name, shape)): (usize, &(&str, &[i64]))| {
            ((*name).to_owned(), wave(shape, phase + i as f64).set_requires_grad(true))
        };
        Net { parameters: shapes.iter().enumerate().map(made).collect() }
    }

    fn tensors(&self) -> Vec<Tensor> {
        self.parameters.iter().map(|(_, t)| t.shallow_clone()).collect()
    }

    /// The mean squared output over rows `from..from + n` of the step's batch.
    fn loss(&self, step: i64, from: i64, n: i64) -> Tensor {
        let p = self.tensors();
        let x = wave(&[BATCH, 6], 10.0 * step as f64).narrow(0, from, n);
        x.linear(&p[0], Some(&p[1])).tanh().linear(&p[2], Some(&p[3])).square().mean(Kind::Float)
    }

    /// One step of plain descent, after which gradients are zero.
    fn descend(&self) {
        no_grad(|| {
            for mut t in self.tensors() {
                let g = t.grad() * 0.5;
                let _ = t.g_sub_(&g);
                let _ = t.grad().zero_();
            }
        });
    }

    fn distance(&self, other: &Net) -> f64 {
        let pairs = self.parameters.iter().zip(&other.parameters);
        pairs.map(|((_, a), (_, b))| (a - b).abs().max().double_value(&[])).fold(0.0, f64::max)
    }
}

fn share(world: &World) -> (i64, i64) {
    let n = BATCH / world.size() as i64;
    (n * world.rank() as i64, n)
}

#[test]
fn overlapped_flat_and_single_process_training_are_the_same() {
    for n in [2, 4] {
        ranks::all_succeed("overlapped_flat_and_single_process_training_are_the_same", n, |world| {
            let (from, rows) = share(world);
            // Ranks start apart, and are made alike.
            let [overlapped, flat] = [0, 1].map(|_| Net::new(world.rank() as f64));
            let single = Net::new(0.0);
            world.broadcast(&overlapped.tensors()).unwrap();
            world.broadcast(&flat.tensors()).unwrap();
            assert_eq!(overlapped.distance(&single), 0.0);
            let mut ddp = Ddp::new(world.group().unwrap(), &overlapped.parameters, BUCKETS).unwrap();
            for step in 0..STEPS {
                ddp.prepare_for_forward().unwrap();
                let loss = overlapped.loss(step, from, rows);
                ddp.backward(|| loss.f_backward()).unwrap();
                flat.loss(step, from, rows).backward();
                let gradients: Vec<_> = flat.tensors().iter().map(Tensor::grad).collect();
                world.average(&gradients).unwrap();
                single.loss(step, 0, BATCH).backward();
                [&overlapped, &flat, &single].into_iter().for_each(Net::descend);
            }
            let moved = single.distance(&Net::new(0.0));
            assert!(moved > 1e-2, "{moved}");
            for (name, net) in [("overlapped", &overlapped), ("flat", &flat)] {
                assert!(net.distance(&single) < 1e-6, "{name}: {}", net.distance(&single));
            }
        });
    }
}

#[test]
fn only_the_last_backward_of_several_averages() {
    ranks::all_succeed("only_the_last_backward_of_several_averages", 2, |world| {
        let (from, rows) = share(world);
        let (net, single) = (Net::new(0.0), Net::new(0.0));
        let mut ddp = Ddp::new(world.group().unwrap(), &net.parameters, BUCKETS).unwrap();
        for step in 0..STEPS {
            ddp.prepare_for_forward().unwrap();
            // Half of the rows in each pass; the sum of halves' means is twice the mean.
            net.loss(step, from, rows / 2).backward();
            let last = net.loss(step, from + rows / 2, rows / 2);
            ddp.backward(|| last.f_backward()).unwrap();
            (single.loss(step, 0, BATCH) * 2.0).backward();
            net.descend();
            single.descend();
        }
        assert!(net.distance(&single) < 1e-6, "{}", net.distance(&single));
    });
}

#[test]
fn what_is_recomputed_twice_over_one_parameter_is_averaged_once() {
    ranks::all_succeed("what_is_recomputed_twice_over_one_parameter_is_averaged_once", 2, |world| {
        let (from, rows) = share(world);
        let (net, single) = (Net::new(0.0), Net::new(0.0));
        // Both halves of the rows go through the same layers, each of them recomputed.
        let recomputed = |step: i64| {
            let p = net.tensors();
            let half = |from: i64| {
                let x = wave(&[BATCH, 6], 10.0 * step as f64).narrow(0, from, rows / 2);
                let [w1, b1, w2, b2] = [0, 1, 2, 3].map(|i| p[i].shallow_clone());
                let h = recompute(&[&x], &[&p[0], &p[1]], move |x, _| x[0].linear(&w1, Some(&b1)).tanh()).unwrap();
                recompute(&[&h], &[&p[2], &p[3]], move |h, _| h[0].linear(&w2, Some(&b2)).square()).unwrap()
            };
            Tensor::cat(&[half(from), half(from + rows / 2)], 0).mean(Kind::Float)
        };
        let mut ddp = Ddp::new(world.group().unwrap(), &net.parameters, BUCKETS).unwrap();
        for step in 0..STEPS {
            ddp.prepare_for_forward().unwrap();
            let loss = recomputed(step);
            ddp.backward(|| loss.f_backward()).unwrap();
            single.loss(step, 0, BATCH).backward();
            net.descend();
            single.descend();
        }
        assert!(net.distance(&single) < 1e-6, "{}", net.distance(&single));
        // An error in the midst of backward ends the group, and nobody waits.
        ddp.prepare_for_forward().unwrap();
        let w = net.tensors()[0].shallow_clone();
        let broken = recompute(&[&w], &[], |w, pass| match pass {
            softclip_torch::Pass::First => w[0].sum(Kind::Float),
            softclip_torch::Pass::Again => w[0].matmul(&w[0]),
        });
        let text = ddp.backward(|| broken.unwrap().f_backward()).unwrap_err().to_string();
        assert!(text.contains("(16x6 and 16x6)"), "{text}");
    });
}

#[test]
fn a_parameter_without_gradient_is_named_and_nobody_hangs() {
    ranks::all_succeed("a_parameter_without_gradient_is_named_and_nobody_hangs", 2, |world| {
        let mut net = Net::new(0.0);
        net.parameters.push(("image.unused".into(), wave(&[4], 0.0).set_requires_grad(true)));
        let mut ddp = Ddp::new(world.group().unwrap(), &net.parameters, BUCKETS).unwrap();
        ddp.prepare_for_forward().unwrap();
        let start = std::time::Instant::now();
        let loss = net.loss(0, 0, 4);
        let error = ddp.backward(|| loss.f_backward()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("rank {} of 2, backward", world.rank())), "{text}");
        assert!(text.contains("no gradient reached image.unused"), "{text}");
        assert!(start.elapsed() < ranks::TIMEOUT / 2);
        let text = ddp.prepare_for_forward().unwrap_err().to_string();
        assert!(text.contains("no longer usable since its backward failed"), "{text}");
    });
}

#[test]
fn a_gradient_that_only_one_rank_lacks_leaves_nobody_waiting() {
    ranks::all_succeed("a_gradient_that_only_one_rank_lacks_leaves_nobody_waiting", 2, |world| {
        let mut net = Net::new(0.0);
        net.parameters.push(("extra".into(), wave(&[4], 0.0).set_requires_grad(true)));
        let mut ddp = Ddp::new(world.group().unwrap(), &net.parameters, BUCKETS).unwrap();
        ddp.prepare_for_forward().unwrap();
        let start = std::time::Instant::now();
        let most = net.loss(0, 0, 4);
        let loss = if world.rank() == 0 { &most + net.parameters[4].1.sum(Kind::Float) } else { most };
        let text = ddp.backward(|| loss.f_backward()).unwrap_err().to_string();
        // Rank 1 ends with its error, and rank 0 sees that it is gone.
        let expected = ["a peer has ended", "no gradient reached extra"][world.rank()];
        assert!(text.contains(expected), "{text}");
        assert!(start.elapsed() < ranks::TIMEOUT / 2);
    });
}

#[test]
fn parameters_are_checked() {
    ranks::all_succeed("parameters_are_checked", 2, |world| {
        let group = world.group().unwrap();
        let leaf = wave(&[4], 0.0).set_requires_grad(true);
        let make = |tensors: &[&Tensor]| {
            let named: Vec<_> = tensors.iter().enumerate().map(|(i, t)| (format!("p{i}"), t.shallow_clone())).collect();
            Ddp::new(group, &named, BucketSizes::default()).err().map(|e| e.to_string())
        };
        assert!(make(&[]).unwrap().contains("at least one"));
        assert!(make(&[&leaf, &(&leaf * 2.0)]).unwrap().contains("p1 is no leaf"));
        assert!(make(&[&wave(&[4], 0.0)]).unwrap().contains("p0 is no leaf"));
        assert!(make(&[&leaf, &leaf]).unwrap().contains("p0 and p1 are the same memory"));
        assert!(make(&[&leaf]).is_none());
    });
}

#[test]
fn ranks_with_other_parameters_are_refused() {
    ranks::all_succeed("ranks_with_other_parameters_are_refused", 2, |world| {
        let size = 4 + world.rank() as i64;
        let named = [("w".to_owned(), wave(&[size], 0.0).set_requires_grad(true))];
        let made = Ddp::new(world.group().unwrap(), &named, BucketSizes::default());
        assert!(matches!(made, Err(Error::Group { peers: Peers::Differ, .. })));
        drop(made);
        world.barrier().unwrap();
    });
}
