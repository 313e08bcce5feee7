//! The arguments of `softclip launch`.

use std::ffi::OsString;

use clap::Args;

pub const EXAMPLES: &str = "\
Examples:
  softclip launch -n 2 -- bench comm
  softclip launch -n 4 --max-restarts 3 -- bench comm --mib 64";

#[derive(Debug, Args)]
pub struct Launch {
    /// How many ranks.
    #[arg(short = 'n', long = "ranks", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub ranks: u16,
    /// How often all ranks are started anew after one has failed.
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub max_restarts: u32,
    /// Seconds that ranks may take to end after SIGTERM, before they are killed.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub grace: u64,
    /// The command of softclip that each rank runs, with its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
