//! Wrong usage: exit status 2, and what may have been meant.

use std::ffi::OsString;
use std::fmt;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use softclip_train::config::{ConfigError, key_named};

use crate::args::Cli;

/// Exit status of wrong usage, as clap has it.
pub const STATUS: u8 = 2;

/// Commands that change a configuration by `--set`.
const WITH_SETS: [&str; 3] = ["train", "config", "ablate"];

/// A mistake in the command line that clap does not see.
#[derive(Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Returns a [`UsageError`] from the function, as `bail!` does another error.
macro_rules! usage {
    ($($text:tt)*) => { return Err($crate::usage::UsageError(format!($($text)*)).into()) };
}

/// Whether the command line is the cause of `error`.
pub fn is_usage(error: &anyhow::Error) -> bool {
    let of_config =
        |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<ConfigError>().is_some_and(ConfigError::is_usage);
    error.chain().any(|cause| cause.is::<UsageError>() || of_config(cause))
}

/// Parses a command line. Where a key of the configuration stands as an argument, the error says how to set it.
///
/// # Errors
/// That of clap.
pub fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(args).map_err(|mut error| {
        if let Some(set) = meant_set(&error, args) {
            let tip = format!("values of the configuration are changed by `--set {set}`");
            error.remove(ContextKind::SuggestedArg);
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
        error
    })
}

/// `train.batch_size=3` for the unknown argument `--batch-size 3`.
fn meant_set(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let mut words = args.iter().skip(1).map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().into_iter();
    let command = words.next()?;
    if error.kind() != ErrorKind::UnknownArgument || !WITH_SETS.contains(&command.as_ref()) {
        return None;
    }
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else { return None };
    let is_flag = unknown.starts_with("--");
    let given = words.find(|word| word == unknown || word.starts_with(&format!("{unknown}=")))?;
    let (name, value) = match given.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (given.to_string(), words.next().filter(|next| is_flag && !next.starts_with("--")).map(|next| next.into_owned())),
    };
    // A lone word is not meant as a key.
    if !is_flag && value.is_none() {
        return None;
    }
    let key = key_named(name.trim_start_matches('-'))?;
    Some(format!("{key}={}", value.unwrap_or_else(|| "VALUE".to_owned())))
}
