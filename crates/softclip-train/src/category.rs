//! Text-based SoftCLIP's frozen encoder: what the tags of an image and the captions mean, before any training.

mod cache;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use sha2::{Digest, Sha256};
use softclip_data::tokenizer::Tokenizer;
use softclip_encoders::{BertPool, TextConfig, TextEncoder};
use softclip_pretrained::{Event, HubOptions, Pretrained};
use softclip_tensor::{Embeddings, Precision, Texts};
use softclip_torch::{Autocast, guard};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};

use self::cache::{Cache, Key, key};
use crate::checkpoint;
use crate::config::{CategoryConfig, ConfigError, Untagged};
use crate::init::read_at_end;
use crate::{Error, Result};

/// The folder of a run that keeps the embeddings, where no other is named.
const FOLDER: &str = "category";
/// Files that a tokenizer is made of.
const TOKENIZER: [&str; 6] =
    ["tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"];

/// The frozen embeddings of a batch, f32; rows of zeros for pairs without tags under [`Untagged::Hard`].
#[derive(Debug)]
pub struct Category {
    /// c `[N, Dc]`, of the category sentences.
    pub sentences: Embeddings,
    /// d `[N, Dc]`, of the captions.
    pub captions: Embeddings,
}

impl Category {
    /// The same in the number type of the arithmetic.
    pub(crate) fn to_kind(&self, kind: Kind) -> Result<Self> {
        let turned = |x: &Embeddings| match x.tensor().kind() == kind {
            true => Ok(x.detach()),
            false => Embeddings::normalize(&x.tensor().f_to_kind(kind)?),
        };
        Ok(Self { sentences: turned(&self.sentences)?, captions: turned(&self.captions)? })
    }
}

/// A pretrained text tower in f32 that never learns, and the embeddings that it has made. Each distinct text is encoded once.
pub struct CategoryEncoder {
    _vs: VarStore,
    encoder: TextEncoder,
    tokenizer: Tokenizer,
    context: usize,
    batch_size: usize,
    untagged: Untagged,
    device: Device,
    name: String,
    cache: Cache,
    encoded: u64,
}

impl CategoryEncoder {
    /// Finds and reads the encoder, and opens its cache: `config.cache`, or one in the folder `run`. `watch` sees downloads.
    ///
    /// # Errors
    /// There is no such model, text tower, pooling or tokenizer; the cache cannot be read or written; the device has no memory left.
    pub fn open(config: &CategoryConfig, run: &Path, device: Device, watch: &mut dyn FnMut(Event<'_>)) -> Result<Self> {
        let wrong = |key: &str, why: String| Error::from(ConfigError::Value { key: format!("category.{key}"), why });
        config.validate_ranges()?;
        let name = config.encoder.clone().ok_or_else(|| wrong("encoder", "no text encoder is named".to_owned()))?;
        let pretrained = Pretrained::open(&name, &HubOptions::from_env()?, watch)?;
        let mut tower = pretrained.text().cloned().ok_or_else(|| {
            let why =
                "it has no text tower whose sizes are known: BERT, RoBERTa and CLIP in Hugging Face's or open_clip's layout do";
            wrong("encoder", format!("{name}: {why}"))
        })?;
        if let Some(pool) = config.pool {
            pool.apply(&mut tower).map_err(|why| wrong("pool", format!("{name}: {why}")))?;
        }
        let pooler = "text.transformer.pooler.dense.weight";
        if matches!(&tower, TextConfig::Bert(c) if c.pool == BertPool::Pooler) && !pretrained.tensors.contains_key(pooler) {
            return Err(wrong("pool", format!("{name} was published without its pooler: write class or mean")));
        }
        let most = tower.context_length() as usize;
        let context = config.context_length.unwrap_or(most);
        if context > most {
            return Err(wrong("context_length", format!("{context} tokens, but {name} reads {most}")));
        }
        let tokenizer = pretrained.tokenizer()?;
        let (tokens, known) = (tokenizer.vocab_size() as i64, tower.vocab_size());
        if tokens > known {
            let why =
                format!("{name}: its tokenizer has {tokens} tokens, its text tower knows {known}: they do not belong together");
            return Err(wrong("encoder", why));
        }
        read_at_end(&mut tower, &tokenizer);
        let id = identity(&pretrained, &tower, context)?;
        let mut vs = VarStore::new(Device::Cpu);
        let encoder =
            TextEncoder::from_tensors(&vs, &tower, &pretrained.tensors).map_err(|e| wrong("encoder", format!("{name}: {e}")))?;
        drop(pretrained);
        vs.freeze();
        if device != Device::Cpu {
            guard(|| vs.set_device(device))?;
        }
        let root = config.cache.clone().unwrap_or_else(|| run.join(FOLDER));
        let cache = Cache::open(&root, &id, encoder.width() as usize)?;
        let (batch_size, untagged) = (config.batch_size, config.untagged);
        Ok(Self { _vs: vs, encoder, tokenizer, context, batch_size, untagged, device, name, cache, encoded: 0 })
    }

    /// One line: which encoder, what is there already, and where.
    pub fn describe(&self) -> String {
        let (width, texts, folder) = (self.encoder.width(), self.cache.len(), self.cache.folder().display());
        format!("category encoder {}, {width} numbers a text; {texts} texts are encoded in {folder}", self.name)
    }

    /// Texts that the encoder has run on: those that the cache did not have.
    pub fn encoded(&self) -> u64 {
        self.encoded
    }

    /// The embeddings of a batch, on the encoder's device.
    ///
    /// # Errors
    /// There are not as many sentences as captions, the encoder gives a vector that is not finite or zero, or the device has no memory
    /// left. A cache that cannot be written is told of on standard error, once; the texts are then encoded again whenever they come.
    pub fn embed(&mut self, texts: &Texts) -> Result<Category> {
        let n = texts.sentences.len();
        if texts.captions.len() != n || texts.present.len() != n {
            let why = format!("{n} of them, {} captions and {} marks of presence", texts.captions.len(), texts.present.len());
            return Err(softclip_tensor::Error::Value { what: "category sentences", why }.into());
        }
        let all = texts.sentences.iter().zip(&texts.present).chain(texts.captions.iter().zip(&texts.present));
        // No key for the texts of a pair that is to be like nothing.
        let known = |present: bool| present || self.untagged != Untagged::Hard;
        let all: Vec<(Option<Key>, &str)> =
            all.map(|(text, present)| (known(*present).then(|| key(text)), text.as_str())).collect();
        let mut rows: HashMap<Key, Vec<f32>> = HashMap::new();
        let mut missing: Vec<(Key, &str)> = Vec::new();
        let mut seen: HashSet<Key> = HashSet::new();
        for (key, text) in all.iter().filter_map(|(key, text)| Some(((*key)?, *text))) {
            if !seen.insert(key) {
                continue;
            }
            match self.cache.get(&key) {
                Some(row) => drop(rows.insert(key, row)),
                None => missing.push((key, text)),
            }
        }
        let made = self.encode(missing)?;
        if let Err(e) = self.cache.put(&made) {
            tracing::warn!("category embeddings cannot be saved ({e}); training continues and encodes them again");
        }
        rows.extend(made);
        let width = self.encoder.width() as usize;
        let mut flat: Vec<f32> = Vec::with_capacity(all.len() * width);
        for (key, _) in &all {
            match key.and_then(|key| rows.get(&key)) {
                Some(row) => flat.extend_from_slice(row),
                None => flat.resize(flat.len() + width, 0.0),
            }
        }
        let matrix = Tensor::from_slice(&flat).f_view([all.len() as i64, width as i64])?.f_to_device(self.device)?;
        let part = |from: usize| Embeddings::normalize(&matrix.f_narrow(0, from as i64, n as i64)?);
        Ok(Category { sentences: part(0)?, captions: part(n)? })
    }

    /// Makes what was encoded outlast a loss of power.
    ///
    /// # Errors
    /// The disk reports one.
    pub fn sync(&self) -> Result<()> {
        self.cache.sync()
    }

    /// Unit vectors of distinct texts, `batch_size` at a time, short texts together.
    fn encode(&mut self, mut texts: Vec<(Key, &str)>) -> Result<Vec<(Key, Vec<f32>)>> {
        texts.sort_by_key(|(_, text)| text.len());
        let mut made = Vec::with_capacity(texts.len());
        for part in texts.chunks(self.batch_size) {
            let sentences: Vec<&str> = part.iter().map(|(_, text)| *text).collect();
            let rows = self.tokenizer.encode_batch(&sentences, self.context, true);
            let features = guard(|| -> Result<Tensor> {
                no_grad(|| {
                    let _autocast = Autocast::enter(self.device, Precision::Fp32)?;
                    let features = self.encoder.encode(&rows.tokens.f_to_device(self.device)?)?;
                    let unit = Embeddings::normalize(&features.f_to_kind(Kind::Float)?)?;
                    Ok(unit.into_tensor().f_to_device(Device::Cpu)?.f_contiguous()?)
                })
            })??;
            let flat = Vec::<f32>::try_from(&features.f_view([-1])?)?;
            for ((key, text), row) in part.iter().zip(flat.chunks_exact(self.encoder.width() as usize)) {
                if row.iter().any(|x| !x.is_finite()) || row.iter().all(|x| *x == 0.0) {
                    let why = format!("its embedding of \"{text}\" is not finite, or zero: are its weights whole?");
                    return Err(
                        ConfigError::Value { key: "category.encoder".to_owned(), why: format!("{}: {why}", self.name) }.into()
                    );
                }
                made.push((*key, row.to_vec()));
            }
        }
        self.encoded += made.len() as u64;
        Ok(made)
    }
}

/// SHA-256 of all that decides what the encoder makes of a text.
fn identity(pretrained: &Pretrained, tower: &TextConfig, context: usize) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut add = |part: &str| hash.update(format!("{}:{part};", part.len()));
    // To be changed with whatever changes the vectors: normalisation, tokenizers, number type.
    add("category embeddings 1, unit, f32");
    let tower = serde_json::to_string(tower);
    add(&tower.map_err(|e| ConfigError::Value { key: "category.encoder".to_owned(), why: format!("its sizes: {e}") })?);
    add(&context.to_string());
    add(&pretrained.files.sha256()?);
    if pretrained.reads_as_clip() {
        add("clip");
    } else {
        for path in TOKENIZER.iter().filter_map(|name| pretrained.files.file(name)) {
            add(&path.file_name().unwrap_or_default().to_string_lossy());
            add(&checkpoint::sha256(&path).map_err(Error::io(&path))?);
        }
    }
    Ok(hash.finalize().into())
}
