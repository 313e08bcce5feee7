//! The three kinds of vocabulary that Hugging Face keeps without a `tokenizer.json`, as the `tokenizer.json` that transformers
//! makes of them.

use serde_json::{Map, Value, json};

/// Tokens and their numbers.
pub(super) type Vocabulary = Map<String, Value>;
/// `tokenizer_config.json`, with `special_tokens_map.json` for what it leaves out.
pub(super) type Settings = Map<String, Value>;
pub(super) type Merges = Vec<(String, String)>;

pub(super) const CLIP_START: &str = "<|startoftext|>";
pub(super) const CLIP_END: &str = "<|endoftext|>";
const CLIP_WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// CLIP's: `vocab.json` and `merges.txt`.
pub(super) fn clip(vocabulary: Vocabulary, merges: Merges, settings: &Settings) -> Result<Value, String> {
    let special = Special::new(&vocabulary, settings);
    let unknown = special.needed("unk_token", CLIP_END)?;
    let (start, end) = (special.needed("bos_token", CLIP_START)?, special.needed("eos_token", CLIP_END)?);
    let names = [("bos_token", CLIP_START), ("eos_token", CLIP_END), ("unk_token", CLIP_END), ("pad_token", CLIP_END)];
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    Ok(json!({
        "version": "1.0",
        "added_tokens": special.added_tokens(&names)?,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": CLIP_WORDS}, "behavior": "Removed", "invert": true},
            byte_level,
        ]},
        "post_processor": roberta_processing(&start, &end, false, false),
        "decoder": byte_level,
        "model": {
            "type": "BPE", "unk_token": unknown.0, "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
            "fuse_unk": false, "vocab": vocabulary, "merges": merges,
        },
    }))
}

/// RoBERTa's: `vocab.json` and `merges.txt`, GPT-2's byte-level BPE between `<s>` and `</s>`.
pub(super) fn roberta(vocabulary: Vocabulary, merges: Merges, settings: &Settings) -> Result<Value, String> {
    let special = Special::new(&vocabulary, settings);
    let (start, end) = (special.needed("cls_token", "<s>")?, special.needed("sep_token", "</s>")?);
    special.needed("pad_token", "<pad>")?;
    let names = [
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("sep_token", "</s>"),
        ("cls_token", "<s>"),
        ("unk_token", "<unk>"),
        ("pad_token", "<pad>"),
        ("mask_token", "<mask>"),
    ];
    let prefix = flag(settings, "add_prefix_space")?.unwrap_or(false);
    let trim = flag(settings, "trim_offsets")?.unwrap_or(true);
    Ok(json!({
        "version": "1.0",
        "added_tokens": special.added_tokens(&names)?,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true},
        "post_processor": roberta_processing(&start, &end, trim, prefix),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": false,
            "vocab": vocabulary, "merges": merges,
        },
    }))
}

/// BERT's: `vocab.txt`.
pub(super) fn bert(vocabulary: Vocabulary, settings: &Settings) -> Result<Value, String> {
    let special = Special::new(&vocabulary, settings);
    let unknown = special.needed("unk_token", "[UNK]")?;
    let (start, end) = (special.needed("cls_token", "[CLS]")?, special.needed("sep_token", "[SEP]")?);
    special.needed("pad_token", "[PAD]")?;
    let names = [
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ];
    let token = |(name, _): &Token, of: u8| json!({"SpecialToken": {"id": name, "type_id": of}});
    let text = |name: &str, of: u8| json!({"Sequence": {"id": name, "type_id": of}});
    let first = [token(&start, 0), text("A", 0), token(&end, 0)];
    let pair = [first.as_slice(), &[text("B", 1), token(&end, 1)]].concat();
    let numbers: Map<String, Value> =
        [&start, &end].into_iter().map(|(name, id)| (name.clone(), json!({"id": name, "ids": [id], "tokens": [name]}))).collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": special.added_tokens(&names)?,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": flag(settings, "tokenize_chinese_chars")?.unwrap_or(true),
            "strip_accents": flag(settings, "strip_accents")?,
            "lowercase": flag(settings, "do_lower_case")?.unwrap_or(true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": first, "pair": pair, "special_tokens": numbers},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": unknown.0, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }))
}

/// `added_tokens.json`, tokens and their numbers, as the `added_tokens_decoder` of newer settings. Special are those that settings name.
pub(super) fn added_tokens_decoder(added: Vocabulary, settings: &Settings) -> Value {
    let others = settings.get("additional_special_tokens").and_then(Value::as_array).into_iter().flatten();
    let of_keys = settings.keys().filter(|key| key.ends_with("_token")).filter_map(|key| special_name(settings, key));
    let special: Vec<&str> = others.filter_map(|t| t.as_str().or_else(|| t["content"].as_str())).chain(of_keys).collect();
    let decoder = added.into_iter().map(|(name, number)| {
        let special = special.contains(&name.as_str());
        (number.to_string(), json!({"content": name, "special": special, "normalized": !special}))
    });
    Value::Object(decoder.collect())
}

/// Adds the tokens of settings' `added_tokens_decoder` that a `tokenizer.json` lacks, as transformers does.
fn add_tokens(document: &mut Value, settings: &Settings) -> Result<(), String> {
    if !settings.contains_key("added_tokens_decoder") {
        return Ok(());
    }
    let no_vocabulary = Vocabulary::new();
    let wanted = Special::new(&no_vocabulary, settings).added_tokens(&[])?;
    if !document["added_tokens"].is_array() {
        document["added_tokens"] = json!([]);
    }
    let Some(tokens) = document["added_tokens"].as_array_mut() else { return Ok(()) };
    for token in wanted {
        if !tokens.iter().any(|known| known["content"] == token["content"]) {
            tokens.push(token);
        }
    }
    Ok(())
}

/// Makes a `tokenizer.json` follow the settings beside it where the two differ, as transformers does.
pub(super) fn follow(document: &mut Value, settings: &Settings) -> Result<(), String> {
    add_tokens(document, settings)?;
    let normalizer = &mut document["normalizer"];
    if normalizer["type"] == "BertNormalizer" {
        let names = [
            ("do_lower_case", "lowercase"),
            ("tokenize_chinese_chars", "handle_chinese_chars"),
            ("strip_accents", "strip_accents"),
        ];
        for (setting, name) in names {
            if let Some(value) = flag(settings, setting)? {
                normalizer[name] = value.into();
            }
        }
    }
    let pre_tokenizer = &mut document["pre_tokenizer"];
    if let (Some(value), true) = (flag(settings, "add_prefix_space")?, pre_tokenizer["type"] == "ByteLevel") {
        pre_tokenizer["add_prefix_space"] = value.into();
    }
    Ok(())
}

/// The name that settings give a special token.
pub(super) fn special_name<'a>(settings: &'a Settings, key: &str) -> Option<&'a str> {
    let value = settings.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// A token and its number.
type Token = (String, u64);

/// Special tokens of a vocabulary, named by settings.
struct Special<'a> {
    vocabulary: &'a Vocabulary,
    settings: &'a Settings,
}

impl<'a> Special<'a> {
    fn new(vocabulary: &'a Vocabulary, settings: &'a Settings) -> Self {
        Self { vocabulary, settings }
    }

    fn needed(&self, key: &str, default: &str) -> Result<Token, String> {
        let name = special_name(self.settings, key).unwrap_or(default);
        let number = self.vocabulary.get(name).and_then(Value::as_u64);
        number
            .map(|number| (name.to_owned(), number))
            .ok_or_else(|| format!("the vocabulary lacks `{name}`, its {key}; `{key}` in tokenizer_config.json can name another"))
    }

    /// Tokens that are found in a text before anything else is done to it: those of `added_tokens_decoder`, and those of `names`
    /// that the vocabulary has. Each number once, in their order, since new tokens are counted on from the vocabulary's end.
    fn added_tokens(&self, names: &[(&str, &str)]) -> Result<Vec<Value>, String> {
        let mut found = Vec::new();
        for (number, token) in self.settings.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten() {
            let (Some(name), Ok(number)) = (token["content"].as_str(), number.parse()) else {
                return Err(format!("added_tokens_decoder in tokenizer_config.json: `{number}` is not a number with a token"));
            };
            found.push(added_token((name, number), token, token["special"].as_bool().unwrap_or(false))?);
        }
        for (key, default) in names {
            if let Ok((name, number)) = self.needed(key, default) {
                found.push(added_token((&name, number), self.settings.get(*key).unwrap_or(&Value::Null), true)?);
            }
        }
        found.sort_by_key(|token| token["id"].as_u64());
        found.dedup_by_key(|token| token["id"].as_u64());
        Ok(found)
    }
}

fn added_token((name, number): (&str, u64), given: &Value, special: bool) -> Result<Value, String> {
    let flag = |key: &str, default: bool| match &given[key] {
        Value::Null => Ok(default),
        Value::Bool(value) => Ok(*value),
        other => Err(format!("special token `{name}`: `{key}` is {other}, not true or false")),
    };
    Ok(json!({
        "id": number, "content": name, "special": special,
        "single_word": flag("single_word", false)?, "lstrip": flag("lstrip", false)?, "rstrip": flag("rstrip", false)?,
        "normalized": flag("normalized", !special)?,
    }))
}

fn roberta_processing(start: &Token, end: &Token, trim_offsets: bool, add_prefix_space: bool) -> Value {
    json!({
        "type": "RobertaProcessing", "sep": end, "cls": start,
        "trim_offsets": trim_offsets, "add_prefix_space": add_prefix_space,
    })
}

fn flag(settings: &Settings, key: &str) -> Result<Option<bool>, String> {
    match settings.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(format!("`{key}` in tokenizer_config.json is {other}, not true or false")),
    }
}
