//! Ranks that compute together, by PyTorch's own c10d: stores, process groups, the engine that averages gradients.
//!
//! An error of a group names rank and operation, and what is known of the peers. After one the group refuses further use: the
//! ranks no longer agree on what they have done, so the process ends and starts anew from a checkpoint. Only where the ranks were seen
//! to differ before anything was sent can they go on.
//!
//! On GPUs operations are queued behind what was asked of the device before, and what is asked of it later waits for them: nothing
//! blocks but [`ProcessGroup::barrier`] and whoever reads a tensor's values. So a rank that is gone or late shows only later, and NCCL's
//! own watchdog then ends the process once the group's time-out is over. That ranks agree is checked where a list of tensors
//! is given, not in every operation.

mod ddp;
mod group;
mod intent;
mod nccl;
mod shared;
mod store;
mod tensors;
mod work;

pub use ddp::{BucketSizes, Ddp};
pub use group::{Backend, ProcessGroup, Reduce};
pub use store::Store;
pub use work::Work;
