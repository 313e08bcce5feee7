//! What a TorchScript file says about itself: attributes of its modules and extra files, read without running it.
//!
//! A TorchScript file is a zip archive. `data.pkl` holds the tree of modules with their attributes, `data/` the numbers
//! of tensors, `code/` the programs, and `extra/` what the exporter added.

mod pickle;
mod tensor;

use std::collections::HashSet;
use std::io::{Cursor, Read};

use pickle::{Id, Pickle, Value};
pub(crate) use tensor::Numbers;
use zip::ZipArchive;

/// Largest `data.pkl` or extra file that is read, in bytes. Detectors have less than a megabyte.
const MAX_RECORD: u64 = 16 << 20;
/// Largest storage of a tensor that is read, in bytes.
const MAX_STORAGE: u64 = 4 << 20;
/// How deep modules and lists may be nested.
const MAX_DEPTH: usize = 64;
/// Largest number of values of all attributes together: values that contain each other expand.
const MAX_VALUES: usize = 1 << 16;

/// An attribute of a module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Attribute {
    /// A tensor of numbers.
    Tensor(Numbers),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// A list or tuple.
    List(Vec<Attribute>),
    /// A dictionary, in the order of the file.
    Dict(Vec<(Attribute, Attribute)>),
    /// Anything else.
    Other,
}

/// A TorchScript file in memory.
pub(crate) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// Folder of all records, with its slash: the file's name at its export.
    root: String,
}

impl<'a> Archive<'a> {
    /// Opens the archive.
    ///
    /// # Errors
    /// The bytes are not a zip archive with a `data.pkl`.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
        let root = zip.file_names().find_map(|name| {
            let root = name.strip_suffix("data.pkl")?;
            (root.find('/') == root.len().checked_sub(1)).then(|| root.to_owned())
        });
        let root = root.ok_or("the archive has no data.pkl")?;
        Ok(Archive { zip, root })
    }

    /// The bytes of a record; none if there is no such record or it is larger than `limit`.
    fn record(&mut self, name: &str, limit: u64) -> Option<Vec<u8>> {
        let entry = self.zip.by_name(&format!("{}{name}", self.root)).ok()?;
        // The size that the archive states may be wrong: what is unpacked is limited too.
        if entry.size() > limit {
            return None;
        }
        let mut bytes = Vec::new();
        entry.take(limit + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= limit).then_some(bytes)
    }

    /// A file that the exporter added, such as `config.txt`.
    pub(crate) fn extra_file(&mut self, name: &str) -> Option<Vec<u8>> {
        self.record(&format!("extra/{name}"), MAX_RECORD)
    }

    /// The attributes called one of `names`, of the module and its submodules: full dotted name and value.
    ///
    /// # Errors
    /// `data.pkl` cannot be read.
    pub(crate) fn attributes(&mut self, names: &[&str]) -> Result<Vec<(String, Attribute)>, String> {
        let pickle = Pickle::parse(&self.record("data.pkl", MAX_RECORD).ok_or("data.pkl is too large or damaged")?)?;
        let (mut found, mut left) = (Vec::new(), MAX_VALUES);
        let mut modules = vec![(String::new(), pickle.root(), 0)];
        let mut visited = HashSet::new();
        while let Some((prefix, id, depth)) = modules.pop() {
            let Value::Object(Some(state)) = pickle.get(id) else { continue };
            let Value::Dict(entries) = pickle.get(*state) else { continue };
            if depth > MAX_DEPTH || !visited.insert(id) {
                continue;
            }
            for (key, value) in entries {
                let Some(key) = pickle.text(*key) else { continue };
                let name = format!("{prefix}{key}");
                if matches!(pickle.get(*value), Value::Object(_)) {
                    modules.push((format!("{name}."), *value, depth + 1));
                } else if names.contains(&key) {
                    found.push((name, self.attribute(&pickle, *value, 0, &mut left)));
                }
            }
        }
        Ok(found)
    }

    /// Shape of the example input that the network was traced with, if the file has one.
    pub(crate) fn traced_input(&mut self) -> Option<Vec<usize>> {
        let pickle = Pickle::parse(&self.record("traced_inputs.pkl", MAX_RECORD)?).ok()?;
        let Value::Dict(methods) = pickle.get(pickle.root()) else { return None };
        let (_, inputs) = methods.iter().find(|(method, _)| pickle.text(*method) == Some("forward"))?;
        match pickle.get(*pickle.elements(*inputs)?.first()?) {
            Value::Tensor(stored) => Some(stored.size.clone()),
            _ => None,
        }
    }

    /// Whether any tensor of the modules is fp16.
    pub(crate) fn has_fp16(&mut self) -> bool {
        let record = self.record("data.pkl", MAX_RECORD);
        record.is_some_and(|bytes| bytes.windows(11).any(|window| window == b"HalfStorage"))
    }

    /// The value `id`. `left` is the number of values that may still be made.
    fn attribute(&mut self, pickle: &Pickle, id: Id, depth: usize, left: &mut usize) -> Attribute {
        if depth > MAX_DEPTH || *left == 0 {
            return Attribute::Other;
        }
        *left -= 1;
        let most = *left;
        let mut next = |id: &Id| self.attribute(pickle, *id, depth + 1, left);
        match pickle.get(id) {
            Value::Int(_) | Value::Float(_) => pickle.number(id).map_or(Attribute::Other, Attribute::Number),
            Value::Text(text) => Attribute::Text(text.clone()),
            Value::List(ids) | Value::Tuple(ids) if ids.len() > most => Attribute::Other,
            Value::Dict(entries) if entries.len() > most => Attribute::Other,
            Value::List(ids) | Value::Tuple(ids) => Attribute::List(ids.iter().map(next).collect()),
            Value::Dict(entries) => Attribute::Dict(entries.iter().map(|(key, value)| (next(key), next(value))).collect()),
            Value::Tensor(stored) => {
                let storage = self.record(&format!("data/{}", stored.file), MAX_STORAGE);
                let numbers = storage.and_then(|storage| stored.numbers(&storage));
                numbers.map_or(Attribute::Other, Attribute::Tensor)
            }
            _ => Attribute::Other,
        }
    }
}
