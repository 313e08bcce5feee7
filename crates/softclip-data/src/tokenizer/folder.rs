//! The files of a Hugging Face folder.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::document::{self, CLIP_END, CLIP_START, Merges, Settings, Vocabulary};
use super::hugging_face::HuggingFace;
use super::{TokenizerError, wrong};

pub(super) fn read(folder: &Path) -> Result<HuggingFace, TokenizerError> {
    if !folder.is_dir() {
        return Err(wrong(
            folder,
            "this is no folder; a tokenizer's has a tokenizer.json, a vocab.txt, or a vocab.json and a merges.txt",
        ));
    }
    let mut settings = settings(folder, "tokenizer_config.json")?;
    for (key, value) in self::settings(folder, "special_tokens_map.json")? {
        settings.entry(key).or_insert(value);
    }
    let has = |name: &str| folder.join(name).exists();
    if has("added_tokens.json") && !settings.contains_key("added_tokens_decoder") {
        let added: Vocabulary = json(&folder.join("added_tokens.json"))?;
        let decoder = document::added_tokens_decoder(added, &settings);
        settings.insert("added_tokens_decoder".to_owned(), decoder);
    }
    if has("tokenizer.json") {
        return read_file(&folder.join("tokenizer.json"), settings);
    }
    let class = settings.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned);
    let (made, class) = if has("vocab.txt") {
        (document::bert(lines(folder)?, &settings), class.unwrap_or("BertTokenizer".to_owned()))
    } else if has("vocab.json") {
        let vocabulary = vocabulary(folder)?;
        let merges = merges(folder, &vocabulary)?;
        if class.as_ref().map_or_else(|| is_clip(&vocabulary), |class| class.starts_with("CLIP")) {
            (document::clip(vocabulary, merges, &settings), class.unwrap_or("CLIPTokenizer".to_owned()))
        } else {
            (document::roberta(vocabulary, merges, &settings), class.unwrap_or("RobertaTokenizer".to_owned()))
        }
    } else {
        return Err(wrong(folder, "it has no tokenizer: neither tokenizer.json nor vocab.txt nor vocab.json and merges.txt"));
    };
    settings.insert("tokenizer_class".to_owned(), class.into());
    HuggingFace::new(folder, made.map_err(|why| wrong(folder, why))?, settings)
}

/// A `tokenizer.json`.
pub(super) fn read_file(path: &Path, settings: Settings) -> Result<HuggingFace, TokenizerError> {
    HuggingFace::new(path, json(path)?, settings)
}

fn text(path: &Path) -> Result<String, TokenizerError> {
    softclip_io::read_text(path).map_err(|e| wrong(path, format!("cannot be read ({e})")))
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, TokenizerError> {
    serde_json::from_str(&text(path)?).map_err(|e| wrong(path, format!("this is not the JSON that it should be: {e}")))
}

fn settings(folder: &Path, name: &str) -> Result<Settings, TokenizerError> {
    let path = folder.join(name);
    if path.exists() { json(&path) } else { Ok(Settings::new()) }
}

/// BERT's `vocab.txt`: a token a line, its number the line's.
fn lines(folder: &Path) -> Result<Vocabulary, TokenizerError> {
    let text = text(&folder.join("vocab.txt"))?;
    Ok(text.lines().zip(0u32..).map(|(token, id)| (token.to_owned(), id.into())).collect())
}

fn vocabulary(folder: &Path) -> Result<Vocabulary, TokenizerError> {
    let path = folder.join("vocab.json");
    let vocabulary: Vocabulary = json(&path)?;
    let mut owner = HashMap::new();
    for (token, id) in &vocabulary {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let Some(id) = number else {
            return Err(wrong(&path, format!("`{token}` has {id} where its number should be")));
        };
        if let Some(other) = owner.insert(id, token) {
            return Err(wrong(&path, format!("`{other}` and `{token}` are both {id}")));
        }
    }
    Ok(vocabulary)
}

/// `merges.txt`: a first line with its version, then two tokens a line that are one together.
fn merges(folder: &Path, vocabulary: &Vocabulary) -> Result<Merges, TokenizerError> {
    let path = folder.join("merges.txt");
    let mut merges = Merges::new();
    for (line, number) in text(&path)?.lines().zip(1..) {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let Some((a, b)) = line.split_once(' ').filter(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains(' ')) else {
            return Err(wrong(&path, format!("line {number} is not two tokens with a space between: {line:?}")));
        };
        let joined = format!("{a}{b}");
        if let Some(token) = [a, b, &joined].into_iter().find(|token| !vocabulary.contains_key(*token)) {
            return Err(wrong(&path, format!("line {number}: vocab.json lacks `{token}`; the two files do not belong together")));
        }
        merges.push((a.to_owned(), b.to_owned()));
    }
    Ok(merges)
}

fn is_clip(vocabulary: &Vocabulary) -> bool {
    [CLIP_START, CLIP_END].into_iter().all(|token| vocabulary.contains_key(token))
        && vocabulary.keys().any(|token| token.ends_with("</w>"))
}
