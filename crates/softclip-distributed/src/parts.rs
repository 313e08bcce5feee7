//! What ranks have parts of: rows of a batch, sums, numbers.

use std::ops::Range;

use softclip_torch::{ProcessGroup, Reduce};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::world::World;

/// Rank `rank`'s part of `n` things that `size` ranks share: consecutive ones, as many as the others' or one less.
pub fn part(n: usize, rank: usize, size: usize) -> Range<usize> {
    let bound = |rank: usize| (rank as u128 * n as u128 / size.max(1) as u128) as usize;
    bound(rank)..bound(rank + 1)
}

impl World {
    /// This rank's [`part`] of `n` things.
    pub fn part(&self, n: usize) -> Range<usize> {
        part(n, self.rank(), self.size())
    }

    /// The rows of all ranks [n, …] from each rank's [`part`] of them; outside of the graph.
    ///
    /// # Errors
    /// `rows` is not this rank's part, the ranks' rows differ in shape or kind, or one is gone.
    pub fn gather_parts(&self, rows: &Tensor, n: usize) -> Result<Tensor> {
        let mine = self.part(n).len() as i64;
        let mut shape = rows.size();
        if shape.first() != Some(&mine) {
            return Err(Error::Invalid(format!("rank {} has {mine} of {n} rows, not {shape:?}", self.rank())));
        }
        let rows = rows.detach();
        let Some(group) = self.group() else { return Ok(rows) };
        // All send as many; those of which there is one less send a row that nobody reads.
        let most = n.div_ceil(self.size());
        shape[0] = most as i64;
        let padded = match mine == shape[0] {
            true => rows.f_contiguous()?,
            false => {
                let padded = Tensor::f_zeros(&shape, (rows.kind(), rows.device()))?;
                padded.f_narrow(0, 0, mine)?.f_copy_(&rows)?;
                padded
            }
        };
        let all = group.all_gather(&padded)?;
        if n.is_multiple_of(self.size()) {
            return Ok(all);
        }
        let parts = (0..self.size()).map(|rank| all.f_narrow(0, (rank * most) as i64, part(n, rank, self.size()).len() as i64));
        Ok(Tensor::f_cat(&parts.collect::<std::result::Result<Vec<_>, _>>()?, 0)?)
    }

    /// Replaces each number by its sum, or another of `reduce`, over the ranks.
    ///
    /// # Errors
    /// The ranks' tensors differ in shape or kind, or one is gone.
    pub fn all_reduce(&self, tensor: &Tensor, reduce: Reduce) -> Result<()> {
        Ok(self.group().map_or(Ok(()), |group| group.all_reduce(tensor, reduce))?)
    }

    /// The sum of each number over the ranks.
    ///
    /// # Errors
    /// A rank is gone or does not come.
    pub fn total(&self, numbers: &[f64]) -> Result<Vec<f64>> {
        let Some(group) = self.group() else { return Ok(numbers.to_vec()) };
        let total = Tensor::from_slice(numbers).f_to_device(self.device())?;
        group.all_reduce(&total, Reduce::Sum)?;
        Ok(Vec::try_from(total.f_to_device(Device::Cpu)?)?)
    }

    /// The numbers of all ranks, those of rank 0 first; each rank gives as many as it has.
    ///
    /// # Errors
    /// A rank is gone or does not come.
    pub fn gather_numbers(&self, numbers: &[i64]) -> Result<Vec<i64>> {
        let Some(group) = self.group() else { return Ok(numbers.to_vec()) };
        let count = Tensor::from_slice(&[numbers.len() as i64]).f_to_device(self.device())?;
        let counts = Vec::<i64>::try_from(group.all_gather(&count)?.f_to_device(Device::Cpu)?)?;
        let most = counts.iter().copied().max().unwrap_or_default() as usize;
        if most == 0 {
            return Ok(Vec::new());
        }
        // All send as many; those that have fewer send zeros, which nobody reads.
        let mut padded = numbers.to_vec();
        padded.resize(most, 0);
        let all = group.all_gather(&Tensor::from_slice(&padded).f_to_device(self.device())?)?;
        let all = Vec::<i64>::try_from(all.f_to_device(Device::Cpu)?)?;
        let parts = all.chunks_exact(most).zip(counts);
        Ok(parts.flat_map(|(part, count)| part[..count as usize].to_vec()).collect())
    }

    /// Rank 0's numbers, on all; every rank gives as many.
    ///
    /// # Errors
    /// A rank is gone or does not come.
    pub fn told(&self, numbers: &[u64]) -> Result<Vec<u64>> {
        let Some(group) = self.group() else { return Ok(numbers.to_vec()) };
        let signed: Vec<i64> = numbers.iter().map(|&n| n as i64).collect();
        let told = Tensor::from_slice(&signed).f_to_kind(Kind::Int64)?.f_to_device(self.device())?;
        group.broadcast(&told, 0)?;
        Ok(Vec::<i64>::try_from(told.f_to_device(Device::Cpu)?)?.into_iter().map(|n| n as u64).collect())
    }

    /// Gives back `result` where all ranks have succeeded; else each an error, so that none waits for one that has stopped.
    ///
    /// # Errors
    /// Its own, or [`Error::Elsewhere`].
    pub fn all_or_none<T, E: From<Error>>(&self, result: std::result::Result<T, E>) -> std::result::Result<T, E> {
        let all = self.all_ok(result.is_ok());
        let value = result?;
        if all? { Ok(value) } else { Err(Error::Elsewhere { rank: self.rank(), size: self.size() }.into()) }
    }

    /// Where tensors lie that ranks exchange.
    pub fn device(&self) -> Device {
        self.group().map_or(Device::Cpu, ProcessGroup::device)
    }
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts_cover_all_and_differ_by_one_at_most() {
        for n in 0..40 {
            for size in 1..9 {
                let parts: Vec<_> = (0..size).map(|rank| part(n, rank, size)).collect();
                assert_eq!((parts[0].start, parts[size - 1].end), (0, n));
                parts.windows(2).for_each(|pair| assert_eq!(pair[0].end, pair[1].start));
                assert!(parts.iter().all(|part| part.len() == n / size || part.len() == n.div_ceil(size)));
            }
        }
    }
}
