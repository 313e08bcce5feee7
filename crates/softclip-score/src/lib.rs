//! Models put to use: scores of pairs listed in a table ([`pairs`], [`score`]), embeddings of whole collections
//! ([`mod@embed`]), and search in them ([`search`]), also from a page ([`mod@serve`]).
//!
//! ```no_run
//! use std::path::Path;
//!
//! use softclip_data::tokenizer::Tokenizer;
//! use softclip_encoders::{Clip, ClipConfig};
//! use softclip_score::pairs::{Columns, Table};
//! use softclip_score::report::Meter;
//! use softclip_score::score::{Format, Output, Places, ScoreOptions, Scorer};
//! use tch::{Device, nn::VarStore};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let vs = VarStore::new(Device::Cpu);
//! let clip = Clip::new(&vs.root(), &ClipConfig::vit_b_32())?; // and its weights
//! let tokenizer = Tokenizer::clip()?;
//! let table = Table::open(Path::new("pairs.csv"), &Columns::default())?;
//! let mut output = Output::file(Path::new("scores.csv"), Format::Csv, table.header())?;
//! let mut meter = Meter::start(Device::Cpu);
//! let scorer = Scorer::new(&clip, &tokenizer, Device::Cpu);
//! let summary = scorer.score(table, Places::beside("pairs.csv"), &ScoreOptions::default(), &mut output, &mut meter)?;
//! output.finish()?;
//! println!("{} of {} pairs\n{}", summary.scored, summary.rows, meter.report(&summary));
//! # Ok(())
//! # }
//! ```

pub mod embed;
mod error;
pub mod pairs;
pub mod report;
pub mod score;
pub mod search;
pub mod serve;

pub use error::{Error, Result};
