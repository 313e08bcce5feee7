//! How long ranks take to exchange tensors.

use std::fmt;
use std::time::Instant;

use softclip_torch::{Reduce, synchronize};
use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::world::World;

/// Mean times of operations on one size of f32 tensors.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Exchange {
    /// Bytes that each rank holds: of the gathered tensor, where rows are gathered.
    pub bytes: usize,
    /// Milliseconds of all_reduce, all_gather, reduce_scatter and broadcast.
    pub milliseconds: [f64; 4],
}

/// [`exchange_times`]'s result, as a table.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ExchangeTimes(pub Vec<Exchange>);

/// Times `repeats` operations of each sort and size in bytes, after one that is not timed. Every rank calls it alike.
///
/// # Errors
/// There is only one rank, or one is gone.
pub fn exchange_times(world: &World, sizes: &[usize], repeats: u32) -> Result<ExchangeTimes> {
    let group = world.group().ok_or_else(|| {
        Error::Invalid("one process has nobody to exchange tensors with: softclip launch -n 2 -- bench comm".into())
    })?;
    let timed = |operation: &dyn Fn() -> Result<()>| -> Result<f64> {
        operation()?;
        synchronize(group.device())?;
        let start = Instant::now();
        (0..repeats).try_for_each(|_| operation())?;
        synchronize(group.device())?;
        Ok(start.elapsed().as_secs_f64() * 1e3 / f64::from(repeats.max(1)))
    };
    let exchange = |bytes: &usize| -> Result<Exchange> {
        let ranks = world.size() as i64;
        // Whole rows for each rank.
        let n = (*bytes as i64 / 4 / ranks).max(1) * ranks;
        let all = Tensor::f_zeros([n], (Kind::Float, group.device()))?;
        let part = all.f_narrow(0, 0, n / ranks)?;
        let milliseconds = [
            timed(&|| Ok(group.all_reduce(&all, Reduce::Sum)?))?,
            timed(&|| Ok(group.all_gather(&part).map(drop)?))?,
            timed(&|| Ok(group.reduce_scatter(&all).map(drop)?))?,
            timed(&|| Ok(group.broadcast(&all, 0)?))?,
        ];
        Ok(Exchange { bytes: n as usize * 4, milliseconds })
    };
    Ok(ExchangeTimes(sizes.iter().map(exchange).collect::<Result<_>>()?))
}

impl fmt::Display for ExchangeTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12} {:>11} {:>11} {:>15} {:>10}", "bytes", "all_reduce", "all_gather", "reduce_scatter", "broadcast")?;
        self.0.iter().try_for_each(|e| {
            let [reduce, gather, scatter, broadcast] = e.milliseconds;
            write!(f, "\n{:>12} {reduce:>8.2} ms {gather:>8.2} ms {scatter:>12.2} ms {broadcast:>7.2} ms", e.bytes)
        })
    }
}
