//! CLIP's vocabulary, embedded, and open_clip's way of applying it.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use regex::Regex;
use serde_json::json;
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab};

use super::{TokenizerError, clean, document, write};

/// CLIP's merges; see `assets/README.md`.
static MERGES: &[u8] = include_bytes!("../../assets/clip_bpe_simple_vocab_16e6.txt.gz");
/// How many of its lines are merges, after the first: 49,152 − 256 − 2.
const MERGE_COUNT: usize = 48_894;
const WORD_END: &str = "</w>";
const START: &str = "<start_of_text>";
const END: &str = "<end_of_text>";

/// How a cleaned text falls into words. (The contractions are matched before letters, so that "it's" is "it" and "'s".)
const WORDS: &str = r"(?i)<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+";

pub(super) struct Clip {
    model: BPE,
    words: Regex,
    /// The printable character that stands for each byte.
    symbols: [char; 256],
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Clip {
    pub(super) fn new() -> Result<Self, TokenizerError> {
        let merges = merges()?;
        // Numbers are given in this order: bytes, bytes that end a word, merges, start, end.
        let symbols = byte_symbols();
        let order = printable_bytes().map(|b| symbols[usize::from(b)]).chain((256..).map_while(char::from_u32)).take(256);
        let single: Vec<String> = order.map(String::from).collect();
        let ending = single.iter().map(|symbol| format!("{symbol}{WORD_END}"));
        let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
        let special = [START, END].map(String::from);
        let vocabulary: Vocab = single.iter().cloned().chain(ending).chain(merged).chain(special).zip(0..).collect();
        let number = |token: &str| vocabulary.get(token).copied().ok_or_else(|| broken(format!("it lacks {token}")));
        let (start, end) = (number(START)?, number(END)?);
        let model = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .end_of_word_suffix(WORD_END.to_owned())
            .cache_capacity(1 << 16)
            .build()
            .map_err(broken)?;
        Ok(Clip { model, words: Regex::new(WORDS).map_err(broken)?, symbols, start, end })
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.model.get_vocab_size()
    }

    pub(super) fn encode(&self, text: &str, context_length: usize) -> Vec<i64> {
        let mut ids = Vec::with_capacity(context_length.min(77));
        ids.push(i64::from(self.start));
        // One past the end tells that the text is cut.
        self.tokens(&clean::clean(text), |id| {
            ids.push(i64::from(id));
            ids.len() <= context_length
        });
        ids.push(i64::from(self.end));
        if ids.len() > context_length {
            ids.truncate(context_length);
            if let Some(last) = ids.last_mut() {
                *last = i64::from(self.end);
            }
        }
        ids
    }

    /// Hands out the tokens of a cleaned text as long as `take` returns true.
    fn tokens(&self, text: &str, mut take: impl FnMut(u32) -> bool) {
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

    pub(super) fn decode(&self, ids: &[i64]) -> String {
        let text = ids.iter().take_while(|&&id| id != i64::from(self.end));
        let tokens = text.filter_map(|&id| u32::try_from(id).ok()).filter(|&id| id < self.start);
        let symbols: String = tokens.filter_map(|id| self.model.id_to_token(id)).collect();
        let byte: HashMap<char, u8> = self.symbols.iter().zip(0u8..=255).map(|(&symbol, byte)| (symbol, byte)).collect();
        let bytes: Vec<u8> =
            symbols.replace(WORD_END, " ").chars().map(|symbol| byte.get(&symbol).copied().unwrap_or(b' ')).collect();
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }

    /// Everything that Hugging Face's readers look for, under the names that they know.
    pub(super) fn save(&self, dir: &Path) -> Result<(), TokenizerError> {
        let merges = merges()?;
        let mut tokens: Vec<(String, u32)> = self.model.get_vocab().into_iter().collect();
        tokens.sort_unstable_by_key(|(_, id)| *id);
        let renamed = |token: String| match token.as_str() {
            START => document::CLIP_START.to_owned(),
            END => document::CLIP_END.to_owned(),
            _ => token,
        };
        let vocabulary: document::Vocabulary = tokens.into_iter().map(|(token, id)| (renamed(token), id.into())).collect();
        let lines: String = merges.iter().map(|(a, b)| format!("{a} {b}\n")).collect();
        let special = json!({
            "bos_token": document::CLIP_START, "eos_token": document::CLIP_END,
            "pad_token": document::CLIP_END, "unk_token": document::CLIP_END,
        });
        let mut config = special.clone();
        config["tokenizer_class"] = "CLIPTokenizer".into();
        config["model_max_length"] = 77.into();
        write(dir, "vocab.json", &serde_json::to_vec(&vocabulary).map_err(broken)?)?;
        write(dir, "merges.txt", format!("#version: 0.2\n{lines}").as_bytes())?;
        write(dir, "special_tokens_map.json", &serde_json::to_vec_pretty(&special).map_err(broken)?)?;
        write(dir, "tokenizer_config.json", &serde_json::to_vec_pretty(&config).map_err(broken)?)?;
        let settings = config.as_object().cloned().unwrap_or_default();
        let whole = document::clip(vocabulary, merges, &settings).map_err(broken)?;
        write(dir, "tokenizer.json", &serde_json::to_vec(&whole).map_err(broken)?)
    }
}

fn merges() -> Result<Vec<(String, String)>, TokenizerError> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(MERGES).read_to_string(&mut text).map_err(broken)?;
    let merges: Vec<(String, String)> = text
        .lines()
        .skip(1)
        .take(MERGE_COUNT)
        .filter_map(|line| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())))
        .collect();
    match merges.len() {
        MERGE_COUNT => Ok(merges),
        n => Err(broken(format!("{n} merges instead of {MERGE_COUNT}"))),
    }
}

fn broken(error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Embedded(error.to_string())
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
