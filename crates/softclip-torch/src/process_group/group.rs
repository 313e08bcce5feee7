//! Groups of ranks and their collective operations.

use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::time::Duration;

use softclip_sys as sys;
use tch::{Device, Kind, Tensor};

use super::intent::Intent;
use super::nccl;
use super::shared::Shared;
use super::store::{Store, c_string, millis};
use super::tensors::check_tensor;
use super::work::Work;
use crate::error::{Error, Peers, Result, report};

/// What carries a group's tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// TCP between CPUs. The address of this machine by which the others reach it; by default what `GLOO_SOCKET_IFNAME` or the
    /// machine's name say.
    Gloo(Option<String>),
    /// NVIDIA's NCCL between GPUs: this process's, by its number on this machine; no other rank may have it. Needs a build with NCCL's
    /// headers, and libtorch with CUDA.
    Nccl(usize),
}

impl Backend {
    /// Gloo among processes of one machine.
    pub fn loopback() -> Self {
        Backend::Gloo(Some("127.0.0.1".into()))
    }
}

/// What becomes of the ranks' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// Their sum.
    Sum,
    /// Their mean; of floating point numbers only.
    Mean,
    /// Their product.
    Product,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

impl Reduce {
    /// c10d's number for it.
    fn code(self) -> u8 {
        match self {
            Reduce::Sum => 0,
            Reduce::Mean => 1,
            Reduce::Product => 2,
            Reduce::Min => 3,
            Reduce::Max => 4,
        }
    }
}

/// This process's end of a group of ranks. All ranks call the same operations in the same order, with tensors of the same shape
/// and kind, contiguous and on the group's device; it stays on the thread that made it.
///
/// On CPUs the ranks first tell each other what they are about to do, and all get an error where they differ. On GPUs an operation is
/// queued, and returns before it is done: see the module. A clone is the same end.
#[derive(Clone)]
pub struct ProcessGroup {
    pub(super) shared: Rc<Shared>,
}

impl ProcessGroup {
    /// Joins `size` ranks that meet at `store`, which no other group may use: take a prefix for each. Every operation ends within
    /// about `timeout`, with an error if need be.
    ///
    /// # Errors
    /// The others do not come in time; `rank` is not below `size`; the back-end is not there.
    pub fn new(store: &Store, rank: usize, size: usize, backend: &Backend, timeout: Duration) -> Result<Self> {
        let narrow = |n: usize| i32::try_from(n).map_err(|_| Error::Invalid(format!("{n} ranks are too many")));
        let (r, s) = (narrow(rank)?, narrow(size)?);
        if rank >= size {
            return Err(Error::Invalid(format!("rank {rank} of {size}: ranks count from 0")));
        }
        let (device, made) = match backend {
            Backend::Gloo(host) => {
                let host = host.as_deref().map(|host| c_string("Gloo", host)).transpose()?;
                let host = host.as_ref().map_or(ptr::null(), |host| host.as_ptr());
                // SAFETY: the store, the string and the error record outlive the call; the group keeps the store alive itself.
                let made = report(|e| unsafe { sys::softclip_gloo(store.as_ptr(), r, s, host, millis(timeout), e) });
                (Device::Cpu, made)
            }
            Backend::Nccl(gpu) => {
                let maker = nccl::maker()?;
                let index = i32::try_from(*gpu).map_err(|_| Error::Invalid(format!("there is no GPU {gpu}")))?;
                // SAFETY: the maker stays loaded; the store and the error record outlive the call; the group keeps the store alive.
                let made = report(|e| unsafe { sys::softclip_nccl(maker, store.as_ptr(), r, s, index, millis(timeout), e) });
                (Device::Cuda(*gpu), made)
            }
        };
        let failed = |peers, why| Error::Group { rank, size, operation: "joining the group", peers, why };
        let raw = made.map_err(|reported| failed(super::shared::peers(&reported.text), reported.reason()))?;
        let raw = NonNull::new(raw).ok_or_else(|| failed(Peers::Unknown, "libtorch made none".into()))?;
        Ok(ProcessGroup { shared: Rc::new(Shared::new(raw, rank, size, device)) })
    }

    /// This process's rank, from 0.
    pub fn rank(&self) -> usize {
        self.shared.rank
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Where tensors must lie.
    pub fn device(&self) -> Device {
        self.shared.device
    }

    /// Combines `tensor` over the ranks, in place.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a tensor that cannot be sent, [`Error::Group`] where the ranks fail.
    pub fn all_reduce(&self, tensor: &Tensor, reduce: Reduce) -> Result<()> {
        self.start_all_reduce(tensor, reduce)?.wait().map(drop)
    }

    /// As [`all_reduce`](Self::all_reduce), without waiting.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a tensor that cannot be sent, [`Error::Group`] where the group has failed.
    pub fn start_all_reduce(&self, tensor: &Tensor, reduce: Reduce) -> Result<Work> {
        const NAME: &str = "all_reduce";
        self.check(NAME, tensor)?;
        floats_only(NAME, tensor, reduce)?;
        self.agree(NAME, &Intent::new(NAME, i64::from(reduce.code()), Some(tensor)))?;
        self.start(NAME, tensor.shallow_clone(), |group, output, e| {
            // SAFETY: group, tensor and the error record outlive the call; the work holds the tensor itself.
            unsafe { sys::softclip_all_reduce(group, output, reduce.code(), e) }
        })
    }

    /// Overwrites `tensor` by what rank `root` has in it.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<()> {
        const NAME: &str = "broadcast";
        self.check(NAME, tensor)?;
        if root >= self.size() {
            return Err(Error::Invalid(format!("{NAME}: rank {root} is not among the {} ranks", self.size())));
        }
        self.agree(NAME, &Intent::new(NAME, root as i64, Some(tensor)))?;
        let root = root as i32;
        let work = self.start(NAME, tensor.shallow_clone(), |group, output, e| {
            // SAFETY: group, tensor and the error record outlive the call; the work holds the tensor itself.
            unsafe { sys::softclip_broadcast(group, output, root, e) }
        })?;
        work.wait().map(drop)
    }

    /// `input` [n, …] of all ranks, one below the other in their order: [size · n, …].
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    pub fn all_gather(&self, input: &Tensor) -> Result<Tensor> {
        self.start_all_gather(input)?.wait()
    }

    /// As [`all_gather`](Self::all_gather), without waiting.
    ///
    /// # Errors
    /// As [`start_all_reduce`](Self::start_all_reduce).
    pub fn start_all_gather(&self, input: &Tensor) -> Result<Work> {
        const NAME: &str = "all_gather";
        self.check(NAME, input)?;
        let mut shape = rows(NAME, input)?;
        shape[0] *= self.size() as i64;
        self.agree(NAME, &Intent::new(NAME, 0, Some(input)))?;
        let output = Tensor::f_zeros(&shape, (input.kind(), input.device()))?;
        let input = input.as_ptr();
        self.start(NAME, output, |group, output, e| {
            // SAFETY: group, tensors and the error record outlive the call; the work holds the tensors itself.
            unsafe { sys::softclip_all_gather(group, output, input, e) }
        })
    }

    /// The sum over the ranks of `input` [size · n, …], of which each rank gets its n rows.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce), and where the rows cannot be shared equally.
    pub fn reduce_scatter(&self, input: &Tensor) -> Result<Tensor> {
        const NAME: &str = "reduce_scatter";
        self.check(NAME, input)?;
        let mut shape = rows(NAME, input)?;
        let size = self.size() as i64;
        if shape[0] % size != 0 {
            return Err(Error::Invalid(format!("{NAME}: {} rows cannot be shared equally by {size} ranks", shape[0])));
        }
        shape[0] /= size;
        self.agree(NAME, &Intent::new(NAME, 0, Some(input)))?;
        let output = Tensor::f_zeros(&shape, (input.kind(), input.device()))?;
        let input = input.as_ptr();
        let work = self.start(NAME, output, |group, output, e| {
            // SAFETY: group, tensors and the error record outlive the call; the work holds the tensors itself.
            unsafe { sys::softclip_reduce_scatter(group, output, input, e) }
        })?;
        work.wait()
    }

    /// Waits until all ranks are here, on GPUs too.
    ///
    /// # Errors
    /// [`Error::Group`] if one does not come.
    pub fn barrier(&self) -> Result<()> {
        const NAME: &str = "barrier";
        self.agree(NAME, &Intent::new(NAME, 0, None))?;
        Work::start(&self.shared, NAME, Tensor::new(), |group, e| {
            // SAFETY: group and the error record outlive the call.
            unsafe { sys::softclip_barrier(group, e) }
        })?
        .wait()
        .map(drop)
    }

    /// The last operation, on all ranks: afterwards each may end when it likes. A group of GPUs that is dropped without it is broken off,
    /// and what is still under way is lost to the other ranks too.
    ///
    /// # Errors
    /// As [`barrier`](Self::barrier).
    pub fn leave(&self) -> Result<()> {
        self.barrier()?;
        self.shared.left.set(true);
        Ok(())
    }

    /// Checks that all ranks have tensors of the same shapes and kinds, in the same order, before they `operation` on them.
    ///
    /// # Errors
    /// They have not: every rank gets this error, and the group stays usable. Or a rank is gone.
    pub fn agree_on(&self, operation: &'static str, tensors: &[Tensor]) -> Result<()> {
        self.compare(operation, &Intent::list(tensors))
    }

    /// Before each operation on CPUs. On a GPU, reading the answer would wait for all that the GPU was asked to do.
    fn agree(&self, operation: &'static str, intent: &Intent) -> Result<()> {
        if self.device() == Device::Cpu { self.compare(operation, intent) } else { Ok(()) }
    }

    fn compare(&self, operation: &'static str, intent: &Intent) -> Result<()> {
        let mine = Tensor::from_slice(intent.words()).f_to_device(self.device())?;
        let all = Tensor::f_zeros([self.size() as i64 * mine.size()[0]], (Kind::Int64, self.device()))?;
        let input = mine.as_ptr();
        let work = self.start(operation, all, |group, output, e| {
            // SAFETY: group, tensors and the error record outlive the call; the work holds the tensors itself.
            unsafe { sys::softclip_all_gather(group, output, input, e) }
        })?;
        let all = Vec::<i64>::try_from(work.wait()?.f_to_device(Device::Cpu)?)?;
        let Some((other, theirs)) = intent.differing(&all) else { return Ok(()) };
        let (rank, size) = (self.rank(), self.size());
        let why = format!("rank {other} has {theirs}; this one {intent}");
        Err(Error::Group { rank, size, operation, peers: Peers::Differ, why })
    }

    fn check(&self, operation: &str, tensor: &Tensor) -> Result<()> {
        check_tensor(operation, tensor, self.device())
    }

    fn start(
        &self,
        operation: &'static str,
        output: Tensor,
        call: impl FnOnce(*mut sys::SoftclipGroup, *const torch_sys::C_tensor, *mut sys::SoftclipError) -> *mut sys::SoftclipWork,
    ) -> Result<Work> {
        if output.numel() == 0 {
            return Work::nothing(&self.shared, operation, output);
        }
        let pointer = output.as_ptr();
        Work::start(&self.shared, operation, output, |group, e| call(group, pointer, e))
    }
}

fn floats_only(operation: &str, tensor: &Tensor, reduce: Reduce) -> Result<()> {
    if reduce == Reduce::Mean && !tensor.is_floating_point() {
        let kind = tensor.kind();
        return Err(Error::Invalid(format!("{operation}: the mean of {kind:?} is not of that type: sum and divide")));
    }
    Ok(())
}

fn rows(operation: &str, tensor: &Tensor) -> Result<Vec<i64>> {
    let shape = tensor.size();
    if shape.is_empty() {
        return Err(Error::Invalid(format!("{operation}: a single number has no rows: take a tensor of shape [1]")));
    }
    Ok(shape)
}
