//! Models put to use: embeddings of whole collections ([`mod@embed`]), and search in them ([`search`]).

pub mod embed;
pub mod search;
