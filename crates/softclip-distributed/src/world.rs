//! What ranks do together.

use std::time::Duration;

use rustix::process::{
    Pid, Signal, getpgrp, getpid, getppid, kill_process, parent_process_death_signal, set_parent_process_death_signal,
    test_kill_process,
};
use softclip_torch::{Backend, ProcessGroup, Reduce, Store, select_device};
use tch::{Device, Kind, Tensor, no_grad};

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::launch::LAUNCHER;

/// This process among its ranks. One process by itself is a world of size 1, in which every operation gives back what it got.
///
/// All ranks call the same functions in the same order, with tensors of the same shapes. A clone is the same rank of the same group.
#[derive(Clone)]
pub struct World {
    rank: usize,
    size: usize,
    local_size: usize,
    group: Option<ProcessGroup>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.size)
    }
}

impl World {
    /// One process by itself.
    pub fn alone() -> Self {
        World { rank: 0, size: 1, local_size: 1, group: None }
    }

    /// Meets the other ranks, over Gloo where `device` is the CPU, over NCCL where it is a GPU: [`Environment::device`] says which. An
    /// operation that a rank does not come to fails after `timeout`; on a GPU it then ends the process.
    ///
    /// # Errors
    /// The others do not come, or nobody listens at MASTER_ADDR and MASTER_PORT; for a GPU: this build has no NCCL, or two ranks have the
    /// same.
    pub fn join(environment: &Environment, device: Device, timeout: Duration) -> Result<Self> {
        let Some(master) = &environment.master else { return Ok(Self::alone()) };
        die_with_launcher();
        let (rank, size) = (environment.rank, environment.world_size);
        let backend = match device {
            Device::Cpu if environment.is_loopback() => Backend::loopback(),
            Device::Cpu => Backend::Gloo(None),
            Device::Cuda(gpu) => Backend::Nccl(gpu),
            other => return Err(Error::Invalid(format!("ranks cannot meet on {other:?}: use the CPU, or NVIDIA's GPUs"))),
        };
        select_device(device)?;
        let store = if rank == 0 && !environment.agent_store {
            Store::host(&master.address, master.port, timeout)?
        } else {
            Store::connect(&master.address, master.port, timeout)?
        };
        // What an earlier start has left in the agent's store must not be met.
        let store = store.prefixed(&format!("softclip/{}", environment.restart))?;
        let group = ProcessGroup::new(&store, rank, size, &backend, timeout)?;
        let local_size = environment.local_world_size.unwrap_or(1).max(1);
        Ok(World { rank, size, local_size, group: Some(group) })
    }

    /// From 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The number of ranks on this machine; 1 where the launcher does not tell.
    pub fn local_size(&self) -> usize {
        self.local_size
    }

    /// The group; none of one process by itself.
    pub fn group(&self) -> Option<&ProcessGroup> {
        self.group.as_ref()
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// One does not come.
    pub fn barrier(&self) -> Result<()> {
        Ok(self.group.as_ref().map_or(Ok(()), ProcessGroup::barrier)?)
    }

    /// At the end of what ranks do together: see [`ProcessGroup::leave`].
    ///
    /// # Errors
    /// A rank does not come.
    pub fn leave(&self) -> Result<()> {
        Ok(self.group.as_ref().map_or(Ok(()), ProcessGroup::leave)?)
    }

    /// Whether `ok` holds on every rank: so that all go on, or all stop.
    ///
    /// # Errors
    /// A rank is gone or does not come.
    pub fn all_ok(&self, ok: bool) -> Result<bool> {
        let Some(group) = &self.group else { return Ok(ok) };
        let all = Tensor::from_slice(&[i64::from(ok)]).f_to_device(group.device())?;
        group.all_reduce(&all, Reduce::Min)?;
        Ok(all.f_int64_value(&[0])? == 1)
    }

    /// Replaces each tensor by its mean over the ranks: the plain way, one operation a kind after backward is done. The
    /// overlapped one is [`softclip_torch::Ddp`].
    ///
    /// # Errors
    /// The ranks' tensors differ in number, shape or kind, or one is gone.
    pub fn average(&self, tensors: &[Tensor]) -> Result<()> {
        self.flat("averaging", tensors, |group, flat| group.all_reduce(flat, Reduce::Mean))
    }

    /// Overwrites each tensor by rank 0's: parameters and buffers before the first step.
    ///
    /// # Errors
    /// As [`average`](Self::average).
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        self.flat("broadcasting", tensors, |group, flat| group.broadcast(flat, 0))
    }

    /// Runs `operation` on all tensors of a kind as one.
    fn flat(
        &self,
        name: &'static str,
        tensors: &[Tensor],
        operation: impl Fn(&ProcessGroup, &Tensor) -> softclip_torch::Result<()>,
    ) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        group.agree_on(name, tensors)?;
        let mut kinds: Vec<Kind> = Vec::new();
        tensors.iter().for_each(|t| {
            if !kinds.contains(&t.kind()) {
                kinds.push(t.kind())
            }
        });
        for kind in kinds {
            let of_kind: Vec<_> = tensors.iter().filter(|t| t.kind() == kind).collect();
            no_grad(|| -> Result<()> {
                let parts = of_kind.iter().map(|t| t.detach().f_reshape([-1])).collect::<std::result::Result<Vec<_>, _>>()?;
                let flat = Tensor::f_cat(&parts, 0)?;
                operation(group, &flat)?;
                let mut from = 0;
                for tensor in of_kind {
                    let n = tensor.numel() as i64;
                    tensor.shallow_clone().f_copy_(&flat.f_narrow(0, from, n)?.f_view_as(tensor)?)?;
                    from += n;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// A launcher that is killed cannot end its ranks: so a process that [`launch`](crate::launch()) has started ends with it from here on.
/// Any other stays as it is. The sooner it is called, the better; [`World::join`] calls it too.
pub fn die_with_launcher() {
    let launcher = std::env::var(LAUNCHER).ok().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
    let Some(launcher) = launcher else { return };
    let before = parent_process_death_signal().ok().flatten();
    // Asked for before the parent is looked at: a launcher that ended in between would go unnoticed. Where the system has no
    // such thing, ranks end when their peers do not answer.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    if getppid() == Some(launcher) {
        return;
    }
    // What a rank has started has another parent, whose end is not the launcher's; but it is in the rank's group, of which a rank is
    // the leader. So this is a rank that came too late.
    let gone = test_kill_process(launcher) == Err(rustix::io::Errno::SRCH);
    if gone && getpgrp() == getpid() {
        let _ = kill_process(getpid(), Signal::TERM);
    }
    let _ = set_parent_process_death_signal(before);
}
