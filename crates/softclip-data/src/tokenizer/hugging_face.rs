//! A tokenizer that a `tokenizer.json` describes, applied by the `tokenizers` library.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;
use tokenizers::{Encoding, ModelWrapper, NormalizedString, Normalizer, PostProcessor, Token};

use super::document::{Settings, follow, special_name};
use super::{TokenizerError, clean, write, wrong};

pub(super) struct HuggingFace {
    tokenizer: tokenizers::Tokenizer,
    /// The tokens before and after every text, at least one each.
    before: Vec<i64>,
    after: Vec<i64>,
    pub(super) pad: i64,
    pub(super) vocab_size: usize,
    settings: Settings,
}

impl HuggingFace {
    /// `path` is the file or folder that errors name.
    pub(super) fn new(path: &Path, document: Value, settings: Settings) -> Result<Self, TokenizerError> {
        // The library panics at a few kinds of damage.
        catch_unwind(AssertUnwindSafe(|| Self::from_document(document, settings)))
            .unwrap_or_else(|_| Err("it is damaged in a way that the tokenizers library does not expect".to_owned()))
            .map_err(|why| wrong(path, why))
    }

    fn from_document(mut document: Value, settings: Settings) -> Result<Self, String> {
        if !document.is_object() || document.get("model").is_none_or(|model| !model.is_object()) {
            return Err("this is no tokenizer: it has no `model`. `save_pretrained` writes a whole one".to_owned());
        }
        follow(&mut document, &settings)?;
        document["truncation"] = Value::Null;
        let padding = document["padding"].take();
        if document["model"]["type"] == "BPE" {
            // Tokens depend on nothing but the text.
            document["model"]["dropout"] = Value::Null;
        }
        let added: Vec<Value> = document["added_tokens"].as_array().cloned().unwrap_or_default();
        let tokenizer: tokenizers::Tokenizer =
            serde_json::from_value(document).map_err(|e| format!("this is no tokenizer that can be used ({e})"))?;
        let number = |name: &str| tokenizer.token_to_id(name).map(i64::from);
        for token in &added {
            let (name, id) = (token["content"].as_str().unwrap_or_default(), token["id"].as_i64());
            if !name.is_empty() && number(name) != id {
                let (id, found) = (id.unwrap_or(-1), number(name).unwrap_or(-1));
                return Err(format!("the added token `{name}` is {id}, but the vocabulary makes it {found}"));
            }
        }
        try_all_characters(&tokenizer)?;
        let (before, after) = around(&tokenizer)?;
        let end = after.last().copied();
        let configured = special_name(&settings, "pad_token").or_else(|| padding["pad_token"].as_str());
        let pad = match configured {
            Some(name) => number(name).ok_or_else(|| format!("the vocabulary lacks its pad_token `{name}`"))?,
            None => number("[PAD]").or_else(|| number("<pad>")).or(end).unwrap_or(0),
        };
        let vocab_size = tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        Ok(HuggingFace { tokenizer, before, after, pad, vocab_size, settings })
    }

    pub(super) fn start(&self) -> i64 {
        self.before.first().copied().unwrap_or_default()
    }

    pub(super) fn end(&self) -> i64 {
        self.after.last().copied().unwrap_or_default()
    }

    pub(super) fn clean(&self, text: &str) -> String {
        let mut text = NormalizedString::from(clean::beginning(text));
        if let Some(normalizer) = self.tokenizer.get_normalizer() {
            // None of the library's normalizers fails on a text.
            let _ = normalizer.normalize(&mut text);
        }
        text.get().to_owned()
    }

    pub(super) fn encode(&self, text: &str, context_length: usize) -> Vec<i64> {
        // All ways to fail were tried when it was made.
        let found = self.tokenizer.encode_fast(clean::beginning(text), false).unwrap_or_default();
        let room = context_length.saturating_sub(self.before.len() + self.after.len());
        let tokens = found.get_ids().iter().take(room).map(|&id| i64::from(id));
        let mut ids: Vec<i64> = self.before.iter().copied().chain(tokens).chain(self.after.iter().copied()).collect();
        if ids.len() > context_length {
            ids.truncate(context_length);
            if let Some(last) = ids.last_mut() {
                *last = self.end();
            }
        }
        ids
    }

    pub(super) fn decode(&self, ids: &[i64]) -> String {
        let text = ids.strip_prefix(self.before.as_slice()).unwrap_or(ids);
        let text = text.iter().take_while(|&&id| id != self.end());
        let ids: Vec<u32> = text.filter_map(|&id| u32::try_from(id).ok()).collect();
        let text = self.tokenizer.decode(&ids, true).unwrap_or_default();
        match self.tokenizer.get_model() {
            // The byte-level decoder leaves CLIP's ends of words in.
            ModelWrapper::BPE(model) => match model.end_of_word_suffix.as_deref() {
                Some(end) if !end.is_empty() => text.replace(end, " ").trim().to_owned(),
                _ => text,
            },
            _ => text,
        }
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), TokenizerError> {
        let tokens =
            self.tokenizer.to_string(false).map_err(|e| wrong(folder, format!("the tokenizer cannot be written ({e})")))?;
        let mut settings = self.settings.clone();
        let name = |id: i64| u32::try_from(id).ok().and_then(|id| self.tokenizer.id_to_token(id));
        settings.entry("pad_token").or_insert(name(self.pad).into());
        if !settings.contains_key("tokenizer_class") {
            settings.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
            settings.entry("bos_token").or_insert(name(self.start()).into());
            settings.entry("eos_token").or_insert(name(self.end()).into());
        }
        write(folder, "tokenizer_config.json", format!("{:#}\n", Value::Object(settings)).as_bytes())?;
        write(folder, "tokenizer.json", tokens.as_bytes())
    }
}

/// The tokens that are put before and after a text.
fn around(tokenizer: &tokenizers::Tokenizer) -> Result<(Vec<i64>, Vec<i64>), String> {
    let none = "texts get no start and end token from it, and the text encoders need both";
    let processor = tokenizer.get_post_processor().ok_or(none)?;
    // No vocabulary has this one.
    let text = Encoding::from_tokens(vec![Token::new(u32::MAX, "text".to_owned(), (0, 4))], 0);
    let found = processor.process(text, None, true).map_err(|e| format!("its post-processor fails ({e})"))?;
    let mut parts = found.get_ids().split(|&id| id == u32::MAX);
    let (Some(before), Some(after), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err("its post-processor does not use a text exactly once".to_owned());
    };
    if before.is_empty() || after.is_empty() {
        return Err(none.to_owned());
    }
    if let Some(id) = before.iter().chain(after).find(|&&id| tokenizer.id_to_token(id).is_none()) {
        return Err(format!("texts get the special token {id}, which the vocabulary lacks"));
    }
    Ok((before.iter().map(|&id| id.into()).collect(), after.iter().map(|&id| id.into()).collect()))
}

/// Whether any text can be encoded: a model may lack the token for what it does not know. These characters have every byte that UTF-8
/// has, and there is a word that is too long for any vocabulary.
fn try_all_characters(tokenizer: &tokenizers::Tokenizer) -> Result<(), String> {
    let some = (0..0x800).chain((0x800..0x11_0000).step_by(0x1000)).filter_map(char::from_u32);
    let text: String = some.chain([' ']).chain(std::iter::repeat_n('x', 200)).collect();
    tokenizer.encode_fast(text, false).map(drop).map_err(|e| format!("it cannot encode every character ({e})"))
}
