//! Tokenizers of Hugging Face folders: what is cut, padded, saved and refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod vocabularies;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use softclip_data::tokenizer::Tokenizer;

fn of(folder: impl AsRef<Path>) -> Tokenizer {
    Tokenizer::from_folder(folder.as_ref()).unwrap()
}

/// What is said of `folder`, with its name left out.
fn refused(folder: &Path) -> String {
    let message = Tokenizer::from_folder(folder).unwrap_err().to_string();
    assert!(message.starts_with(&folder.display().to_string()), "{message}");
    message.replace(&folder.display().to_string(), "")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = read(path);
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn texts_are_cut_before_the_end_and_padded_behind_it() {
    let (bert, roberta) = (of(vocabularies::bert()), of(vocabularies::roberta()));
    assert_eq!((bert.vocab_size(), bert.pad_token(), bert.start_token(), bert.end_token()), (30_522, 0, 101, 102));
    assert_eq!((roberta.vocab_size(), roberta.pad_token(), roberta.start_token(), roberta.end_token()), (50_265, 1, 0, 2));
    assert_eq!(bert.encode("Hello world", 77), [101, 7592, 2088, 102]);
    assert_eq!(bert.encode("Hello world", 4), [101, 7592, 2088, 102]);
    assert_eq!(bert.encode("Hello world", 3), [101, 7592, 102]);
    assert_eq!(bert.encode("Hello world", 1), [102]);
    assert!(bert.encode("Hello world", 0).is_empty());
    assert_eq!(roberta.encode("", 77), [0, 2]);
    let rows = roberta.encode_batch(&["Hello world", ""], 5, false);
    assert_eq!(Vec::<i64>::try_from(rows.tokens.flatten(0, -1)).unwrap(), [0, 31_414, 232, 2, 1, 0, 2, 1, 1, 1]);
    assert_eq!(rows.lengths, [4, 2]);
    assert_eq!(roberta.encode_batch(&["Hello world", ""], 5, true).tokens.size(), [2, 4]);
}

#[test]
fn every_text_is_encoded_and_text_comes_back() {
    let (bert, roberta) = (of(vocabularies::bert()), of(vocabularies::roberta()));
    assert_eq!(bert.encode("\u{1F9FF}", 77), [101, 100, 102]); // [UNK]
    assert_eq!(bert.encode("[MASK] [SEP]", 77), [101, 103, 102, 102]);
    assert_eq!(bert.clean("Café  北京"), "cafe   北  京 ");
    assert_eq!(bert.decode(&bert.encode("A Café, isn't it?", 77)), "a cafe, isn ' t it?"); // as transformers does
    for text in ["A Café, isn't it?", " two  spaces", "北京 😀 \u{10fffd}", ""] {
        let ids = roberta.encode(text, 77);
        assert_eq!(roberta.decode(&[ids, vec![1, 1]].concat()), text);
    }
    assert_eq!(roberta.decode(&[-1, 50_265, 1 << 40, 31_414, 2, 232]), "Hello");
}

#[test]
fn a_text_without_end_is_read_up_to_64_kib() {
    for tokenizer in [of(vocabularies::bert()), of(vocabularies::roberta())] {
        let [words, word, spaces] = ["é x ", "é", " "].map(|part| part.repeat(1 << 18));
        assert_eq!(
            tokenizer.encode(&words, usize::MAX),
            tokenizer.encode(&words[..words.floor_char_boundary(1 << 16)], usize::MAX)
        );
        for text in [words, word, spaces] {
            let ids = tokenizer.encode(&text, 77);
            assert!(ids.len() <= 77 && ids.last() == Some(&tokenizer.end_token()));
        }
    }
}

#[test]
fn settings_beside_a_vocabulary_are_followed() {
    let folder = vocabularies::bert();
    let settings = folder.path().join("tokenizer_config.json");
    fs::write(&settings, r#"{"do_lower_case": false, "strip_accents": null, "tokenize_chinese_chars": false}"#).unwrap();
    let cased = of(&folder);
    assert_eq!(cased.clean("Café 北京"), "Café 北京");
    // The same for a tokenizer.json that says otherwise.
    fs::write(&settings, "{}").unwrap();
    of(&folder).save(folder.path()).unwrap();
    assert_eq!(of(&folder).clean("Café"), "cafe");
    change(&settings, |settings| settings["do_lower_case"] = false.into());
    assert_eq!(of(&folder).encode("Café 北京", 77), cased.encode("Café 北 京", 77));
    change(&settings, |settings| settings["do_lower_case"] = "no".into());
    assert!(refused(folder.path()).contains("`do_lower_case` in tokenizer_config.json is \"no\", not true or false"));

    let folder = vocabularies::roberta();
    let mask = json!({"content": "<mask>", "lstrip": true, "normalized": false});
    let given = json!({"add_prefix_space": true, "mask_token": mask});
    fs::write(folder.path().join("tokenizer_config.json"), given.to_string()).unwrap();
    assert_eq!(of(&folder).encode("Hello <mask>", 77), [0, 20_920, 50_264, 2]);
}

#[test]
fn a_saved_tokenizer_is_read_back() {
    let texts = ["Hello world, it's 3 o'clock", "Ünïcödé 北京 😀", "<s>[MASK]</s> <|endoftext|>", ""];
    for (made, class) in [(vocabularies::bert(), "BertTokenizer"), (vocabularies::roberta(), "RobertaTokenizer")] {
        let (first, saved, again) = (of(&made), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        first.save(&saved.path().join("new")).unwrap();
        let second = of(saved.path().join("new"));
        second.save(again.path()).unwrap();
        assert_eq!(read(&again.path().join("tokenizer_config.json"))["tokenizer_class"], class);
        let third = Tokenizer::from_file(&again.path().join("tokenizer.json")).unwrap();
        for other in [second, of(&again), third] {
            assert!(texts.iter().all(|text| other.encode(text, 9) == first.encode(text, 9)));
            assert_eq!((other.pad_token(), other.vocab_size()), (first.pad_token(), first.vocab_size()));
        }
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut files: Vec<String> = fs::read_dir(&again).unwrap().map(|entry| name(entry.unwrap())).collect();
        files.sort();
        assert_eq!(files, ["tokenizer.json", "tokenizer_config.json"]);
    }
}

#[test]
fn clips_saved_tokenizer_is_that_of_hugging_face() {
    let (clip, folder) = (Tokenizer::clip().unwrap(), tempfile::tempdir().unwrap());
    clip.save(folder.path()).unwrap();
    let config = read(&folder.path().join("tokenizer_config.json"));
    assert_eq!((&config["tokenizer_class"], &config["model_max_length"]), (&json!("CLIPTokenizer"), &json!(77)));
    assert_eq!(read(&folder.path().join("vocab.json"))["<|endoftext|>"], 49_407);
    let theirs = of(&folder);
    assert_eq!((theirs.vocab_size(), theirs.start_token(), theirs.end_token()), (49_408, 49_406, 49_407));
    assert_eq!((clip.pad_token(), theirs.pad_token()), (0, 49_407));
    let sentence = "A man's dog, 3 cats...\tand (un)usual_things @ <b>home</b>! 'tis 1984 #clip";
    assert_eq!(theirs.encode(sentence, 77), clip.encode(sentence, 77));
    assert_eq!(theirs.encode(sentence, 9), clip.encode(sentence, 9));
    assert_eq!(theirs.decode(&theirs.encode("two cats, one dog", 77)), clip.decode(&clip.encode("two cats, one dog", 77)));
    // Without any settings the tokens tell that it is CLIP's.
    for file in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    assert_eq!(of(&folder).encode(sentence, 77), clip.encode(sentence, 77));
    assert_eq!(of(&folder).encode("<|endoftext|>", 77), [49_406, 49_407, 49_407]);
}

#[test]
fn padding_truncation_and_dropout_of_a_file_are_set_aside() {
    let folder = vocabularies::roberta();
    let plain = of(&folder);
    plain.save(folder.path()).unwrap();
    let file = folder.path().join("tokenizer.json");
    change(&file, |document| {
        document["truncation"] = json!({"direction": "Left", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
        document["padding"] = json!({
            "strategy": {"Fixed": 99}, "direction": "Left", "pad_to_multiple_of": null,
            "pad_id": 50_264, "pad_type_id": 0, "pad_token": "<mask>",
        });
        document["model"]["dropout"] = 0.9.into();
    });
    let text = "an extraordinarily long sentence";
    assert_eq!(of(&folder).encode(text, 77), plain.encode(text, 77));
    assert_eq!(of(&folder).pad_token(), 1, "of the configuration");
    assert_eq!(Tokenizer::from_file(&file).unwrap().pad_token(), 50_264, "of the file alone");
}

#[test]
fn damaged_and_missing_files_are_refused_by_name() {
    let empty = tempfile::tempdir().unwrap();
    assert!(refused(empty.path()).contains("neither tokenizer.json nor vocab.txt nor vocab.json"));
    assert!(refused(&empty.path().join("none")).contains("no folder"));

    let roberta = vocabularies::roberta();
    let path = |name: &str| roberta.path().join(name);
    of(&roberta).save(roberta.path()).unwrap();
    let whole = fs::read(path("tokenizer.json")).unwrap();
    for keep in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(path("tokenizer.json"), &whole[..keep]).unwrap();
        assert!(refused(roberta.path()).contains("tokenizer.json: this is not the JSON"), "{keep}");
    }
    type Damage = fn(&mut Value);
    let damages: [(Damage, &str); 8] = [
        (|d| *d = json!([]), "it has no `model`"),
        (|d| d["model"]["merges"] = json!([["nn", "nowhere"]]), "nowhere"),
        (|d| d["post_processor"] = Value::Null, "no start and end"),
        (|d| d["post_processor"]["cls"] = json!(["<s>", 99_999]), "special token 99999"),
        (|d| d["added_tokens"][4]["id"] = 7.into(), "`<mask>` is 7, but the vocabulary makes it 50264"),
        (|d| d["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "damaged"),
        (|d| d["model"] = json!({"type": "WordLevel", "vocab": {"<s>": 0, "</s>": 2}, "unk_token": "<unk>"}), ""),
        (|d| d["pre_tokenizer"] = json!({"type": "Unheard"}), "no tokenizer that can be used"),
    ];
    for (damage, why) in damages {
        fs::write(path("tokenizer.json"), &whole).unwrap();
        change(&path("tokenizer.json"), damage);
        let message = refused(roberta.path());
        assert!(message.starts_with("/tokenizer.json: ") && message.contains(why), "{message}");
    }
    fs::remove_file(path("tokenizer.json")).unwrap();

    let merges = fs::read_to_string(path("merges.txt")).unwrap();
    fs::write(path("merges.txt"), merges.replacen("h e\n", "h e e\n", 1)).unwrap();
    assert!(refused(roberta.path()).contains("merges.txt: line 4 is not two tokens"));
    fs::write(path("merges.txt"), merges.replacen("h e\n", "h 北\n", 1)).unwrap();
    assert!(refused(roberta.path()).contains("merges.txt: line 4: vocab.json lacks `北`"));
    fs::remove_file(path("merges.txt")).unwrap();
    assert!(refused(roberta.path()).contains("merges.txt: cannot be read"));
    fs::write(path("vocab.json"), r#"{"a": 0, "b": 0}"#).unwrap();
    assert!(refused(roberta.path()).contains("vocab.json: `a` and `b` are both 0"));
    fs::write(path("vocab.json"), r#"{"a": -1}"#).unwrap();
    assert!(refused(roberta.path()).contains("`a` has -1 where its number should be"));

    let bert = tempfile::tempdir().unwrap();
    fs::write(bert.path().join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\na\n").unwrap();
    assert!(refused(bert.path()).contains("the vocabulary lacks `[SEP]`, its sep_token"));
    fs::write(bert.path().join("vocab.txt"), [0xff, 0xfe]).unwrap();
    assert!(refused(bert.path()).contains("vocab.txt: cannot be read"));
    fs::write(bert.path().join("tokenizer_config.json"), "{").unwrap();
    assert!(refused(bert.path()).contains("tokenizer_config.json: this is not the JSON"));
}

#[test]
fn files_of_a_tokenizer_may_begin_with_a_mark() {
    let (plain, marked) = (vocabularies::roberta(), vocabularies::roberta());
    for name in ["vocab.json", "merges.txt"] {
        let path = marked.path().join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, [b"\xef\xbb\xbf".as_slice(), &bytes].concat()).unwrap();
    }
    assert_eq!(of(&marked).encode("Hello world", 77), of(&plain).encode("Hello world", 77));
    fs::write(marked.path().join("tokenizer_config.json"), b"\xff\xfe{\0}\0").unwrap();
    assert!(refused(marked.path()).contains("UTF-16: save it as UTF-8"));
}
