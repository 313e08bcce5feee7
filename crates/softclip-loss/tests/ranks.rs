//! A batch whose loss several ranks compute together has the loss and the gradients that one process finds.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::{Barrier, Mutex};

use softclip_loss::config::LossConfig;
use softclip_loss::{Alone, BlockOptions, Error, LossInputs, Ranks, Result, Scales, blockwise_among};
use softclip_tensor::Embeddings;
use support::{Data, Draw, Outcome, losses, outcome_error, run_among, scales, softclip};
use tch::{Kind, Tensor};

/// Where threads that play ranks lay down what the others are to read.
struct Table {
    slots: Mutex<Vec<Option<Tensor>>>,
    met: Barrier,
}

struct Seat<'a> {
    table: &'a Table,
    rank: usize,
    size: usize,
}

impl Seat<'_> {
    fn combine(&self, tensor: &Tensor, with: impl Fn(&Tensor, &Tensor) -> Tensor) -> Result<()> {
        assert!(tensor.is_contiguous() && tensor.is_floating_point());
        self.table.slots.lock().unwrap()[self.rank] = Some(tensor.copy());
        self.table.met.wait();
        let all: Vec<Tensor> = self.table.slots.lock().unwrap().iter().map(|t| t.as_ref().unwrap().shallow_clone()).collect();
        self.table.met.wait();
        let total = all.into_iter().reduce(|a, b| with(&a, &b)).unwrap();
        tensor.shallow_clone().copy_(&total);
        Ok(())
    }
}

impl Ranks for Seat<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, tensor: &Tensor) -> Result<()> {
        self.combine(tensor, |a, b| a + b)
    }

    fn max(&self, tensor: &Tensor) -> Result<()> {
        self.combine(tensor, |a, b| a.maximum(b))
    }
}

/// What each of `size` ranks finds.
fn among(size: usize, config: &LossConfig, data: impl Fn() -> Data + Sync, kind: Kind, tile: i64) -> Vec<Outcome> {
    let table = Table { slots: Mutex::new((0..size).map(|_| None).collect()), met: Barrier::new(size) };
    let rank = |rank: usize| {
        tch::set_num_threads(1);
        run_among(config, &data(), &scales(), kind, tile, &Seat { table: &table, rank, size })
    };
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..size).map(|r| scope.spawn(move || rank(r))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn ranks_find_what_one_process_finds() {
    for (k, config) in losses().iter().enumerate() {
        for (size, n, tile) in [(2, 2, 1024), (2, 3, 2), (2, 17, 1024), (3, 16, 3), (4, 5, 1024), (4, 24, 1024)] {
            let data = || Data::random(k as u64, n, 5);
            let alone = run_among(config, &data(), &scales(), Kind::Double, 1024, &Alone);
            for (rank, found) in among(size, config, data, Kind::Double, tile).iter().enumerate() {
                let error = outcome_error(found, &alone);
                assert!(error < 1e-9, "{config:?}, rank {rank} of {size}, {n} pairs in tiles of {tile}: {error:e}");
            }
        }
    }
}

#[test]
fn ranks_are_within_1e_5_in_f32() {
    for config in losses() {
        let data = || Data::random(7, 24, 12);
        let alone = run_among(&config, &data(), &scales(), Kind::Float, 1024, &Alone);
        for found in among(4, &config, data, Kind::Float, 1024) {
            let error = outcome_error(&found, &alone);
            assert!(error < 1e-5, "{config:?}: {error:e}");
        }
    }
}

#[test]
fn pairs_without_detections_are_the_same_on_all_ranks() {
    let data = || {
        let beta = Tensor::from_slice(&[0.3, 0.0, 0.3, 0.3, 0.0, 0.3, 0.3]).to_kind(Kind::Double);
        Data { row_beta: Some(beta), ..Data::random(3, 7, 4) }
    };
    let config = softclip(|_| ());
    let alone = run_among(&config, &data(), &scales(), Kind::Double, 1024, &Alone);
    for found in among(3, &config, data, Kind::Double, 1024) {
        assert!(outcome_error(&found, &alone) < 1e-9);
    }
}

/// Every rank's share of the work is needed: one that exchanges nothing finds something else.
#[test]
fn a_rank_by_itself_has_only_its_part() {
    struct Deaf;
    impl Ranks for Deaf {
        fn rank(&self) -> usize {
            0
        }
        fn size(&self) -> usize {
            2
        }
        fn sum(&self, _: &Tensor) -> Result<()> {
            Ok(())
        }
        fn max(&self, _: &Tensor) -> Result<()> {
            Ok(())
        }
    }
    let (config, data) = (softclip(|_| ()), Data::random(1, 16, 5));
    let alone = run_among(&config, &data, &scales(), Kind::Double, 1024, &Alone);
    assert!(outcome_error(&run_among(&config, &data, &scales(), Kind::Double, 1024, &Deaf), &alone) > 1e-3);
}

#[test]
fn an_exchange_that_fails_is_an_error() {
    struct Broken;
    impl Ranks for Broken {
        fn rank(&self) -> usize {
            1
        }
        fn size(&self) -> usize {
            2
        }
        fn sum(&self, _: &Tensor) -> Result<()> {
            Err(Error::Ranks("rank 0 is gone".into()))
        }
        fn max(&self, _: &Tensor) -> Result<()> {
            Ok(())
        }
    }
    let rows = |seed| Embeddings::checked(Draw(seed).rows(8, 4, None)).unwrap();
    let (image, text) = (rows(0), rows(1));
    for config in [LossConfig::Clip(Default::default()), LossConfig::Siglip(Default::default())] {
        let inputs = LossInputs::new(&image, &text);
        let scales = Scales { bias: Some(-1.0), ..Scales::new(2.0) };
        let error = blockwise_among(&config, &inputs, &scales, &BlockOptions::default(), &Broken).unwrap_err();
        assert_eq!(error.to_string(), "rank 0 is gone");
    }
}
