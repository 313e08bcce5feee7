//! Ranks that compute together, by PyTorch's own c10d: stores, process groups, the engine that averages gradients.
//!
//! An error of a group names rank and operation, and what is known of the peers. After one the group refuses further use: the
//! ranks no longer agree on what they have done, so the process ends and starts anew from a checkpoint. Only where the ranks were seen
//! to differ before anything was sent can they go on.

mod ddp;
mod group;
mod intent;
mod shared;
mod store;
mod tensors;
mod work;

pub use ddp::{BucketSizes, Ddp};
pub use group::{Backend, ProcessGroup, Reduce};
pub use store::Store;
pub use work::Work;
