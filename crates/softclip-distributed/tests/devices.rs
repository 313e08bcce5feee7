//! Ranks on the devices that `SOFTCLIP_TEST_DEVICE` names: with `cuda` one a GPU, over NCCL; by default two on the CPU, over Gloo.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod ranks;

use softclip_distributed::World;
use softclip_distributed::tch::{Device, Kind, Tensor};
use softclip_torch::{BucketSizes, Ddp, Reduce, cuda_devices};

#[test]
fn ranks_compute_together_on_their_devices() {
    let name = std::env::var("SOFTCLIP_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    let n = if name == "cpu" { 2 } else { usize::try_from(cuda_devices()).unwrap().min(8) };
    if n < 2 {
        println!("skipped: {n} GPUs; ranks need one each");
        return;
    }
    println!("{n} ranks on {name}");
    ranks::all_succeed_on(&name, "ranks_compute_together_on_their_devices", n, |world| {
        operations(world);
        world_operations(world);
        gradients(world);
        world.leave().unwrap();
    });
}

fn numbers(values: &[i64], kind: Kind, device: Device) -> Tensor {
    Tensor::from_slice(values).to_kind(kind).to_device(device)
}

fn values(t: &Tensor) -> Vec<i64> {
    Vec::<i64>::try_from(t.to_device(Device::Cpu).to_kind(Kind::Int64).reshape([-1])).unwrap()
}

fn operations(world: &World) {
    let group = world.group().unwrap();
    let (device, r, n) = (group.device(), world.rank() as i64, world.size() as i64);
    let sum = n * (n + 1) / 2;
    for kind in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half, Kind::Int64, Kind::Int] {
        for (reduce, expected) in [(Reduce::Sum, [sum, 8 * n]), (Reduce::Min, [1, 8]), (Reduce::Max, [n, 8])] {
            let t = numbers(&[r + 1, 8], kind, device);
            group.all_reduce(&t, reduce).unwrap();
            assert_eq!(values(&t), expected, "{kind:?} {reduce:?}");
        }
        if kind != Kind::Int64 && kind != Kind::Int {
            let t = numbers(&[2 * r], kind, device);
            group.all_reduce(&t, Reduce::Mean).unwrap();
            assert_eq!(values(&t), [n - 1], "{kind:?}");
        }
        let all = group.all_gather(&numbers(&[r, 10 + r], kind, device)).unwrap();
        assert_eq!(values(&all), (0..n).flat_map(|q| [q, 10 + q]).collect::<Vec<_>>(), "{kind:?}");
        let input = numbers(&(0..n).map(|i| (r + 1) * i).collect::<Vec<_>>(), kind, device);
        assert_eq!(values(&group.reduce_scatter(&input).unwrap()), [sum * r], "{kind:?}");
        let t = numbers(&[r, 7], kind, device);
        group.broadcast(&t, 1).unwrap();
        assert_eq!(values(&t), [1, 7], "{kind:?}");
    }
    let tensors: Vec<_> = (0..8).map(|i| numbers(&[i; 100_000], Kind::Float, device)).collect();
    let works: Vec<_> = tensors.iter().map(|t| group.start_all_reduce(t, Reduce::Sum).unwrap()).collect();
    for (i, work) in works.into_iter().enumerate() {
        assert_eq!(values(&work.wait().unwrap())[99_999], n * i as i64);
    }
}

fn world_operations(world: &World) {
    let group = world.group().unwrap();
    let (device, r, n) = (group.device(), world.rank() as i64, world.size() as i64);
    world.barrier().unwrap();
    assert!(world.all_ok(true).unwrap() && !world.all_ok(r != n - 1).unwrap());
    let part = world.part(3 * n as usize - 1);
    let rows = numbers(&part.map(|i| i as i64).collect::<Vec<_>>(), Kind::Float, device).view([-1, 1]);
    assert_eq!(values(&world.gather_parts(&rows, 3 * n as usize - 1).unwrap()), (0..3 * n - 1).collect::<Vec<_>>());
    assert_eq!(
        (world.total(&[r as f64]).unwrap(), world.told(&[5 + r as u64]).unwrap()),
        (vec![(n * (n - 1) / 2) as f64], vec![5])
    );
    let tensors = [numbers(&[2 * r, 4], Kind::Float, device), numbers(&[6 * r], Kind::Double, device)];
    world.average(&tensors).unwrap();
    assert_eq!((values(&tensors[0]), values(&tensors[1])), (vec![n - 1, 4], vec![3 * (n - 1)]));
    world.broadcast(&tensors).unwrap();
    // Of another length on each rank: all are told, and go on.
    let text = group.agree_on("a test", &[numbers(&vec![0; 1 + r as usize], Kind::Float, device)]).unwrap_err().to_string();
    assert!(text.contains("do not agree"), "{text}");
    world.barrier().unwrap();
}

fn gradients(world: &World) {
    let group = world.group().unwrap();
    let (r, n) = (world.rank() as f64, world.size() as f64);
    let named: Vec<_> = (0..3)
        .map(|i| (format!("w{i}"), Tensor::full([300], 1.0 + i as f64, (Kind::Float, group.device())).set_requires_grad(true)))
        .collect();
    let mut ddp = Ddp::new(group, &named, BucketSizes { first: 64, others: 2048 }).unwrap();
    for _ in 0..3 {
        ddp.prepare_for_forward().unwrap();
        let loss = named.iter().map(|(_, w)| (w * w).sum(Kind::Float)).sum::<Tensor>() * (r + 1.0);
        ddp.backward(|| loss.f_backward()).unwrap();
        for (i, (_, w)) in named.iter().enumerate() {
            let off = (w.grad() - (1.0 + i as f64) * (n + 1.0)).abs().max().double_value(&[]);
            assert!(off < 1e-4, "w{i}: {off}");
            let _ = w.grad().zero_();
        }
    }
}
