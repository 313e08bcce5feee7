//! CLIP's tokenizer: byte-level pair encoding over 49,408 entries, the vocabulary embedded.
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
//! # Ok(())
//! # }
//! ```

mod clean;

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, OnceLock};

use regex::Regex;
use softclip_tensor::TokenRows;
use softclip_tensor::tch::Tensor;
use tokenizers::Model;
use tokenizers::models::bpe::BPE;

/// CLIP's merges; see `assets/README.md`.
static MERGES: &[u8] = include_bytes!("../assets/clip_bpe_simple_vocab_16e6.txt.gz");
/// How many of its lines are merges, after the first: 49,152 − 256 − 2.
const MERGE_COUNT: usize = 48_894;
const WORD_END: &str = "</w>";
const START: &str = "<start_of_text>";
const END: &str = "<end_of_text>";

/// How a cleaned text falls into words. (The contractions are matched before letters, so that "it's" is "it" and "'s".)
const WORDS: &str = r"(?i)<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+";

/// The embedded vocabulary cannot be used: the build is broken.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the embedded vocabulary of CLIP cannot be used: {0}")]
pub struct TokenizerError(String);

/// CLIP's tokenizer. Clones share everything; any number of threads may use it at once.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    model: BPE,
    words: Regex,
    /// The printable character that stands for each byte.
    symbols: [char; 256],
    start: u32,
    end: u32,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// CLIP's vocabulary, which is built on the first call and shared from then on.
    ///
    /// # Errors
    /// The embedded vocabulary is damaged.
    pub fn clip() -> Result<Self, TokenizerError> {
        static CLIP: OnceLock<Result<Tokenizer, TokenizerError>> = OnceLock::new();
        CLIP.get_or_init(|| Ok(Tokenizer { inner: Arc::new(Inner::clip()?) })).clone()
    }

    /// The text as the tokenizer reads it: repaired (ftfy), HTML's character references replaced, white space collapsed, lower case.
    /// Of a text beyond 64 KiB the beginning.
    pub fn clean(&self, text: &str) -> String {
        clean::clean(text)
    }

    /// Start, tokens, end: at most `context_length` of them. A longer text is cut, and the last token is the end all the same.
    /// An empty text is start and end.
    pub fn encode(&self, text: &str, context_length: usize) -> Vec<i64> {
        let mut ids = Vec::with_capacity(context_length.min(77));
        ids.push(i64::from(self.inner.start));
        // One past the end tells that the text is cut.
        self.inner.encode(&self.clean(text), |id| {
            ids.push(i64::from(id));
            ids.len() <= context_length
        });
        ids.push(i64::from(self.inner.end));
        if ids.len() > context_length {
            ids.truncate(context_length);
            if let Some(last) = ids.last_mut() {
                *last = i64::from(self.inner.end);
            }
        }
        ids
    }

    /// Rows of [`encode`](Self::encode), padded with 0 to `context_length`, or with `trim` to the longest of them.
    pub fn encode_batch<S: AsRef<str>>(&self, texts: &[S], context_length: usize, trim: bool) -> TokenRows {
        let rows: Vec<Vec<i64>> = texts.iter().map(|text| self.encode(text.as_ref(), context_length)).collect();
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = if trim { longest } else { context_length };
        let mut ids = vec![0i64; rows.len() * width];
        for (slot, row) in ids.chunks_exact_mut(width.max(1)).zip(&rows) {
            slot[..row.len()].copy_from_slice(row);
        }
        let tokens = Tensor::from_slice(&ids).view([rows.len() as i64, width as i64]);
        TokenRows { tokens, lengths: rows.iter().map(|row| row.len() as i64).collect() }
    }

    /// The text of tokens up to the first end (padding comes after it; 0 by itself is a token, a kind of "!"). Start tokens and
    /// unknown numbers are left out; words are separated by one space each.
    pub fn decode(&self, ids: &[i64]) -> String {
        let inner = &self.inner;
        let text = ids.iter().take_while(|&&id| id != self.end_token());
        let tokens = text.filter_map(|&id| u32::try_from(id).ok()).filter(|&id| id < inner.start);
        let symbols: String = tokens.filter_map(|id| inner.model.id_to_token(id)).collect();
        let byte: HashMap<char, u8> = inner.symbols.iter().zip(0u8..=255).map(|(&symbol, byte)| (symbol, byte)).collect();
        let bytes: Vec<u8> =
            symbols.replace(WORD_END, " ").chars().map(|symbol| byte.get(&symbol).copied().unwrap_or(b' ')).collect();
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }

    /// Number of entries: 49,408.
    pub fn vocab_size(&self) -> usize {
        self.inner.model.get_vocab_size()
    }

    /// The token before every text: 49,406.
    pub fn start_token(&self) -> i64 {
        i64::from(self.inner.start)
    }

    /// The token after every text: 49,407, the largest, so that `argmax` finds it.
    pub fn end_token(&self) -> i64 {
        i64::from(self.inner.end)
    }
}

impl Inner {
    fn clip() -> Result<Self, TokenizerError> {
        let mut text = String::new();
        flate2::read::GzDecoder::new(MERGES).read_to_string(&mut text).map_err(broken)?;
        let merges: Vec<(String, String)> = text
            .lines()
            .skip(1)
            .take(MERGE_COUNT)
            .filter_map(|line| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
            .collect();
        if merges.len() != MERGE_COUNT {
            return Err(TokenizerError(format!("{} merges instead of {MERGE_COUNT}", merges.len())));
        }
        // Numbers are given in this order: bytes, bytes that end a word, merges, start, end.
        let symbols = byte_symbols();
        let order = printable_bytes().map(|b| symbols[usize::from(b)]).chain((256..).map_while(char::from_u32)).take(256);
        let single: Vec<String> = order.map(String::from).collect();
        let ending = single.iter().map(|symbol| format!("{symbol}{WORD_END}"));
        let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
        let special = [START, END].map(String::from);
        let vocabulary: HashMap<String, u32> =
            single.iter().cloned().chain(ending).chain(merged).chain(special).zip(0..).collect();
        let number = |token| vocabulary.get(token).copied().ok_or_else(|| TokenizerError(format!("it lacks {token}")));
        let (start, end) = (number(START)?, number(END)?);
        let model = BPE::builder()
            .vocab_and_merges(vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
            .end_of_word_suffix(WORD_END.to_owned())
            .cache_capacity(1 << 16)
            .build()
            .map_err(broken)?;
        Ok(Inner { model, words: Regex::new(WORDS).map_err(broken)?, symbols, start, end })
    }

    /// Hands out the tokens of a cleaned text as long as `take` returns true.
    fn encode(&self, text: &str, mut take: impl FnMut(u32) -> bool) {
        let mut symbols = String::new();
        for word in self.words.find_iter(text) {
            match word.as_str() {
                START if !take(self.start) => return,
                END if !take(self.end) => return,
                START | END => continue,
                _ => {}
            }
            symbols.clear();
            symbols.extend(word.as_str().bytes().map(|b| self.symbols[usize::from(b)]));
            // Every byte is in the vocabulary, so nothing can fail here.
            for token in self.model.tokenize(&symbols).unwrap_or_default() {
                if !take(token.id) {
                    return;
                }
            }
        }
    }
}

fn broken(error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError(error.to_string())
}

/// The bytes that stand for themselves, as Latin-1.
fn printable_bytes() -> impl Iterator<Item = u8> {
    (b'!'..=b'~').chain(0xa1..=0xac).chain(0xae..=0xff)
}

/// GPT-2's printable character for each byte: itself, or one from U+0100 on.
fn byte_symbols() -> [char; 256] {
    let mut symbols = ['\0'; 256];
    for byte in printable_bytes() {
        symbols[usize::from(byte)] = char::from(byte);
    }
    let others = ('\u{100}'..).take(256);
    symbols.iter_mut().filter(|symbol| **symbol == '\0').zip(others).for_each(|(symbol, other)| *symbol = other);
    symbols
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
