//! Texts into tokens: CLIP's byte-level pair encoding of 49,408 entries, which is built in, and whatever a Hugging Face folder
//! describes.
//!
//! ```
//! use softclip_data::tokenizer::Tokenizer;
//!
//! # fn main() -> Result<(), softclip_data::tokenizer::TokenizerError> {
//! let tokenizer = Tokenizer::clip()?;
//! assert_eq!(tokenizer.encode("A photo of a cat", 77), [49406, 320, 1125, 539, 320, 2368, 49407]);
//!
//! let rows = tokenizer.encode_batch(&["a cat", ""], 77, true);
//! assert_eq!(rows.tokens.size(), [2, 4]); // as wide as the longest text here
//! assert_eq!(rows.lengths, [4, 2]);
//!
//! let folder = std::env::temp_dir().join(format!("tokenizer-{}", std::process::id()));
//! tokenizer.save(&folder)?; // as Hugging Face keeps it
//! let theirs = Tokenizer::from_folder(&folder)?;
//! assert_eq!(theirs.encode("A photo of a cat", 77), tokenizer.encode("A photo of a cat", 77));
//! # let _ = std::fs::remove_dir_all(folder);
//! # Ok(())
//! # }
//! ```
//!
//! # Two readings of CLIP
//!
//! [`Tokenizer::clip`] does what open_clip does, [`Tokenizer::from_folder`] what Hugging Face's class does with the same
//! vocabulary. They differ in texts that ftfy repairs (curly quotes, mojibake, full width, ligatures, control characters) or that
//! hold HTML's character references; in the names of the start and the end token (`<start_of_text>`, `<|startoftext|>`), should a
//! text spell them out; and in padding: 0 with the former, the end token with the latter.

mod clean;
mod clip;
mod document;
mod folder;
mod hugging_face;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use softclip_tensor::TokenRows;
use softclip_tensor::file::write_atomic;
use softclip_tensor::tch::Tensor;

use clip::Clip;
use hugging_face::HuggingFace;

/// A tokenizer cannot be made or written.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The build is broken.
    #[error("the embedded vocabulary of CLIP cannot be used: {0}")]
    Embedded(String),
    /// A file or folder cannot be read or written, or is not what it should be.
    #[error("{}: {why}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
}

/// A tokenizer. Clones share everything; any number of threads may use it at once.
#[derive(Clone)]
pub struct Tokenizer {
    kind: Arc<Kind>,
}

enum Kind {
    Clip(Clip),
    HuggingFace(HuggingFace),
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match *self.kind {
            Kind::Clip(_) => "clip",
            Kind::HuggingFace(_) => "hugging_face",
        };
        f.debug_struct("Tokenizer").field("kind", &name).field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// CLIP's vocabulary, which is built on the first call and shared from then on.
    ///
    /// # Errors
    /// The embedded vocabulary is damaged.
    pub fn clip() -> Result<Self, TokenizerError> {
        static CLIP: OnceLock<Result<Tokenizer, TokenizerError>> = OnceLock::new();
        CLIP.get_or_init(|| Ok(Tokenizer { kind: Arc::new(Kind::Clip(Clip::new()?)) })).clone()
    }

    /// The tokenizer of a Hugging Face folder: its `tokenizer.json`; without that a `vocab.txt` is BERT's; without that
    /// `vocab.json` and `merges.txt` are CLIP's if `tokenizer_config.json` or the tokens say so, otherwise RoBERTa's. Of
    /// `tokenizer_config.json` and `special_tokens_map.json` the names of special tokens and what the text is made into
    /// (`do_lower_case`, `strip_accents`, `tokenize_chinese_chars`, `add_prefix_space`) are taken, as transformers does.
    ///
    /// Padding and truncation are always the caller's and at the end, and dropout of merges is off.
    ///
    /// # Errors
    /// A file is missing, cannot be read or contradicts another; texts do not get a start and an end; a character could not
    /// be encoded.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        Ok(Tokenizer { kind: Arc::new(Kind::HuggingFace(folder::read(folder)?)) })
    }

    /// The tokenizer of one `tokenizer.json`. What stands beside it is not looked at: the padding token is the one that the file
    /// pads with, else `[PAD]` or `<pad>`, else the end token.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder).
    pub fn from_file(file: &Path) -> Result<Self, TokenizerError> {
        Ok(Tokenizer { kind: Arc::new(Kind::HuggingFace(folder::read_file(file, document::Settings::new())?)) })
    }

    /// Writes the files from which [`from_folder`](Self::from_folder) and Hugging Face's `AutoTokenizer` make this tokenizer
    /// again: `tokenizer.json` and `tokenizer_config.json`, for CLIP's also `vocab.json`, `merges.txt` and
    /// `special_tokens_map.json`. The folder is made if it is not there. CLIP's comes back as Hugging Face reads it: see the
    /// [module](self).
    ///
    /// # Errors
    /// The disk is full or not writable. Each file is whole or as it was.
    pub fn save(&self, folder: &Path) -> Result<(), TokenizerError> {
        std::fs::create_dir_all(folder).map_err(|e| wrong(folder, format!("cannot be made ({e})")))?;
        match &*self.kind {
            Kind::Clip(clip) => clip.save(folder),
            Kind::HuggingFace(other) => other.save(folder),
        }
    }

    /// The text as the tokenizer reads it. CLIP's: repaired (ftfy), HTML's character references replaced, white space collapsed,
    /// lower case. Of a text beyond 64 KiB the beginning.
    pub fn clean(&self, text: &str) -> String {
        match &*self.kind {
            Kind::Clip(_) => clean::clean(text),
            Kind::HuggingFace(other) => other.clean(text),
        }
    }

    /// Start, tokens, end: at most `context_length` of them. A longer text is cut, and the last token is the end all the same.
    /// An empty text is start and end. Of a text beyond 64 KiB the beginning.
    pub fn encode(&self, text: &str, context_length: usize) -> Vec<i64> {
        match &*self.kind {
            Kind::Clip(clip) => clip.encode(text, context_length),
            Kind::HuggingFace(other) => other.encode(text, context_length),
        }
    }

    /// Rows of [`encode`](Self::encode), padded to `context_length`, or with `trim` to the longest of them.
    pub fn encode_batch<S: AsRef<str>>(&self, texts: &[S], context_length: usize, trim: bool) -> TokenRows {
        let rows: Vec<Vec<i64>> = texts.iter().map(|text| self.encode(text.as_ref(), context_length)).collect();
        self.rows(&rows, context_length, trim)
    }

    /// Encoded texts as one tensor.
    pub(crate) fn rows<R: AsRef<[i64]>>(&self, rows: &[R], context_length: usize, trim: bool) -> TokenRows {
        let lengths: Vec<i64> = rows.iter().map(|row| row.as_ref().len() as i64).collect();
        let longest = lengths.iter().max().map_or(0, |&n| n as usize);
        let width = if trim { longest } else { context_length };
        let mut ids = vec![self.pad_token(); rows.len() * width];
        for (slot, row) in ids.chunks_exact_mut(width.max(1)).zip(rows) {
            slot[..row.as_ref().len()].copy_from_slice(row.as_ref());
        }
        TokenRows { tokens: Tensor::from_slice(&ids).view([rows.len() as i64, width as i64]), lengths }
    }

    /// The text of tokens up to the first end (padding comes after it; CLIP's 0 by itself is a token, a kind of "!"). Start tokens
    /// and unknown numbers are left out. With CLIP's words are separated by one space each.
    pub fn decode(&self, ids: &[i64]) -> String {
        match &*self.kind {
            Kind::Clip(clip) => clip.decode(ids),
            Kind::HuggingFace(other) => other.decode(ids),
        }
    }

    /// The rows that an embedding of tokens needs: the largest token plus one. CLIP's: 49,408.
    pub fn vocab_size(&self) -> usize {
        match &*self.kind {
            Kind::Clip(clip) => clip.vocab_size(),
            Kind::HuggingFace(other) => other.vocab_size,
        }
    }

    /// The token behind shorter texts of a batch. CLIP's: 0, as in open_clip. CLIP's of a Hugging Face folder: its end token.
    pub fn pad_token(&self) -> i64 {
        match &*self.kind {
            Kind::Clip(_) => 0,
            Kind::HuggingFace(other) => other.pad,
        }
    }

    /// The token before every text. CLIP's: 49,406.
    pub fn start_token(&self) -> i64 {
        match &*self.kind {
            Kind::Clip(clip) => clip.start.into(),
            Kind::HuggingFace(other) => other.start(),
        }
    }

    /// The token after every text. CLIP's: 49,407, the largest, so that `argmax` finds it.
    pub fn end_token(&self) -> i64 {
        match &*self.kind {
            Kind::Clip(clip) => clip.end.into(),
            Kind::HuggingFace(other) => other.end(),
        }
    }
}

fn wrong(path: &Path, why: impl Into<String>) -> TokenizerError {
    TokenizerError::File { path: path.to_owned(), why: why.into() }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), TokenizerError> {
    let path = folder.join(name);
    write_atomic(&path, bytes).map_err(|e| match e {
        softclip_tensor::Error::Io { source, .. } => wrong(&path, format!("cannot be written ({source})")),
        other => wrong(&path, other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_is_that_of_clip() {
        let tokenizer = Tokenizer::clip().unwrap();
        assert_eq!((tokenizer.vocab_size(), tokenizer.start_token(), tokenizer.end_token()), (49_408, 49_406, 49_407));
    }

    #[test]
    fn a_long_text_is_cut_and_keeps_its_end() {
        let tokenizer = Tokenizer::clip().unwrap();
        let full = tokenizer.encode("a dog on the beach", 77);
        assert_eq!(full.len(), 7);
        assert_eq!(tokenizer.encode("a dog on the beach", 7), full);
        let cut = tokenizer.encode("a dog on the beach", 6);
        assert_eq!((&cut[..5], cut[5]), (&full[..5], 49_407));
        assert_eq!(tokenizer.encode("a dog", 1), [49_407]);
        assert!(tokenizer.encode("a dog", 0).is_empty());
        assert_eq!(tokenizer.encode(" \n", 77), [49_406, 49_407]);
    }

    #[test]
    fn batches_are_padded_or_trimmed() {
        let tokenizer = Tokenizer::clip().unwrap();
        let padded = tokenizer.encode_batch(&["a cat", ""], 8, false);
        assert_eq!(Vec::<i64>::try_from(padded.tokens.flatten(0, -1)).unwrap(), {
            let mut row = vec![49_406, 320, 2368, 49_407, 0, 0, 0, 0];
            row.extend([49_406, 49_407, 0, 0, 0, 0, 0, 0]);
            row
        });
        assert_eq!(tokenizer.encode_batch(&["a cat", ""], 8, true).tokens.size(), [2, 4]);
        assert_eq!(tokenizer.encode_batch::<&str>(&[], 8, true).tokens.size(), [0, 0]);
        assert_eq!(tokenizer.encode_batch::<&str>(&[], 8, false).tokens.size(), [0, 8]);
    }

    #[test]
    fn decoding_gives_the_cleaned_text_back() {
        let tokenizer = Tokenizer::clip().unwrap();
        for text in ["a photo of a cat", "zwei straßen , 北京 ! 😀", ""] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text, 77)), text);
        }
        assert_eq!(tokenizer.decode(&[-1, 49_408, 1 << 40, 320, 49_407, 0, 0]), "a");
    }
}
