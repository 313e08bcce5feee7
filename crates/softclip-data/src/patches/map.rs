//! What the values of a mask mean, and which class a patch has.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use softclip_io::{TextError, parse_yaml, read_text};

use super::PatchError;
use super::yaml::{Colour, Named};

/// Codes of pixels: not labelled, labelled as nothing of interest, and from here on the labels.
pub(super) const IGNORED: u8 = 0;
pub(super) const BACKGROUND: u8 = 1;
pub(super) const FIRST_LABEL: u8 = 2;

/// The most labels of a map: all their combinations are looked at.
const MAX_LABELS: usize = 16;

/// The file as it stands; docs/data.md says what each key means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    labels: Named<Vec<Colour>>,
    #[serde(default)]
    background: Vec<Colour>,
    #[serde(default)]
    ignore: Vec<Colour>,
    #[serde(default = "refuse")]
    unlisted: String,
    min_present: f64,
    min_labelled: f64,
    classes: Named<String>,
    combinations: Vec<Combination>,
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unlabelled: Option<String>,
    #[serde(default = "template")]
    template: String,
}

fn refuse() -> String {
    "error".to_owned()
}

fn template() -> String {
    "a photo of {}".to_owned()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Combination {
    present: Vec<String>,
    class: String,
}

/// A map from the values of masks to labels, and from the labels that a patch shows to its class. Made by [`PatchMap::open`].
#[derive(Debug, Clone, PartialEq)]
pub struct PatchMap {
    pub(super) path: PathBuf,
    file: File,
    codes: Codes,
    /// The code of values that are not listed.
    unlisted: Option<u8>,
    /// The class of each combination; bit i of the index is label i.
    classes: Vec<usize>,
    unlabelled: Option<usize>,
}

/// The code of each value that is listed.
type Codes = HashMap<[u8; 3], u8>;

/// A key of the file and what is wrong with it.
type Wrong = (String, String);

fn wrong<T>(key: impl Into<String>, why: impl Into<String>) -> Result<T, Wrong> {
    Err((key.into(), why.into()))
}

impl PatchMap {
    /// Reads a YAML file; docs/data.md lists its keys.
    ///
    /// # Errors
    /// The file cannot be read, has an unknown or missing key, or contradicts itself: the message names the line or the key.
    pub fn open(path: &Path) -> Result<Self, PatchError> {
        let text = read_text(path).map_err(|e| match e {
            TextError::Io(source) => PatchError::Io { path: path.to_owned(), source },
            other => PatchError::Map { place: path.display().to_string(), reason: other.to_string() },
        })?;
        let file = parse_yaml(&text).map_err(|e| {
            let line = e.line().map(|line| format!(":{line}")).unwrap_or_default();
            PatchError::Map { place: format!("{}{line}", path.display()), reason: e.reason() }
        })?;
        Self::new(path, file)
            .map_err(|(key, why)| PatchError::Map { place: path.display().to_string(), reason: format!("{key}: {why}") })
    }

    fn new(path: &Path, file: File) -> Result<Self, Wrong> {
        for (key, share) in [("min_present", file.min_present), ("min_labelled", file.min_labelled)] {
            if !(0.0..=1.0).contains(&share) {
                return wrong(key, format!("{share} is no share: 0 to 1 is accepted"));
            }
        }
        if file.template.matches("{}").count() != 1 || file.template.lines().count() != 1 {
            return wrong("template", "one line with one {} for the class's name is accepted, as in \"an aerial photo of {}\"");
        }
        file.check_names()?;
        let (codes, unlisted) = file.codes()?;
        let classes = file.combine()?;
        let unlabelled = file.unlabelled.as_ref().map(|class| file.class("unlabelled", class)).transpose()?;
        let can_be_unlabelled = codes.values().any(|&code| code == IGNORED) || unlisted == Some(IGNORED);
        if unlabelled.is_some() && !can_be_unlabelled {
            return wrong(
                "unlabelled",
                "no patch is ever unlabelled, for no value is ignored: take the line away, or list `ignore`",
            );
        }
        let reached = |class| classes.contains(&class) || unlabelled == Some(class);
        if let Some((_, name)) = file.classes.names().enumerate().find(|&(class, _)| !reached(class)) {
            return wrong(
                format!("classes.{name}"),
                "no combination, `other` or `unlabelled` leads to it: take it away, or name it there",
            );
        }
        Ok(Self { path: path.to_owned(), file, codes, unlisted, classes, unlabelled })
    }

    /// Classes in the order of the file: folder, and readable name.
    pub fn classes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.file.classes.0.iter().map(|(class, name)| (class.as_str(), name.as_str()))
    }

    /// The text that captions are made by, with `{}` for the class's name.
    pub fn template(&self) -> &str {
        &self.file.template
    }

    pub(super) fn caption(&self, class: usize) -> String {
        self.file.classes.0.get(class).map(|(_, name)| self.file.template.replacen("{}", name, 1)).unwrap_or_default()
    }

    /// The code of a value; none if it is not listed and that is an error.
    pub(super) fn code(&self, value: [u8; 3]) -> Option<u8> {
        self.codes.get(&value).copied().or(self.unlisted)
    }

    /// How many codes there are.
    pub(super) fn codes(&self) -> usize {
        self.file.labels.0.len() + usize::from(FIRST_LABEL)
    }

    /// The name of each code.
    pub(super) fn code_names(&self) -> impl Iterator<Item = &str> {
        ["unlabelled", "background"].into_iter().chain(self.file.labels.names())
    }

    /// The class of a patch with so many pixels of each code; none if it is left out.
    pub(super) fn class(&self, counts: &[u32]) -> Option<usize> {
        let all: u32 = counts.iter().sum();
        // A quotient, for it is the same number as the decimal that stands in the file. No share is reached without a pixel.
        let reaches = |n: u32, share: f64| n > 0 && f64::from(n) / f64::from(all) >= share;
        if !reaches(all - counts[usize::from(IGNORED)], self.file.min_labelled) {
            return self.unlabelled;
        }
        let labels = counts.iter().skip(usize::from(FIRST_LABEL)).enumerate();
        let present = labels.filter(|&(_, &n)| reaches(n, self.file.min_present)).map(|(label, _)| 1 << label).sum::<usize>();
        self.classes.get(present).copied()
    }
}

impl Serialize for PatchMap {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.file.serialize(to)
    }
}

impl File {
    fn check_names(&self) -> Result<(), Wrong> {
        let labels = self.labels.0.len();
        if !(1..=MAX_LABELS).contains(&labels) {
            return wrong("labels", format!("{labels} of them: 1 to {MAX_LABELS} are accepted"));
        }
        if let Some(name) = self.labels.names().find(|name| ["error", "background", "ignore", "unlabelled"].contains(name)) {
            return wrong(format!("labels.{name}"), "this word has a meaning of its own: take another");
        }
        for (i, (class, name)) in self.classes.0.iter().enumerate() {
            let key = || format!("classes.{class}");
            let plain = |c: char| c.is_alphanumeric() || "_- ".contains(c);
            if class.is_empty() || class.trim() != class || !class.chars().all(plain) {
                return wrong(key(), "the name of a folder is expected: letters, digits, _ and -");
            }
            if name.trim().is_empty() || name.trim() != name || name.chars().any(char::is_control) {
                return wrong(key(), "a readable name on one line is expected, as captions and prompts are to call it");
            }
            if let Some((other, _)) = self.classes.0[..i].iter().find(|(_, other)| other == name) {
                return wrong(key(), format!("`{other}` has the same readable name: prompts could not tell them apart"));
            }
        }
        Ok(())
    }

    /// The code of each value that is listed, and that of all others.
    fn codes(&self) -> Result<(Codes, Option<u8>), Wrong> {
        let mut codes = Codes::new();
        let labels =
            self.labels.0.iter().zip(FIRST_LABEL..).map(|((name, values), code)| (format!("labels.{name}"), values, code));
        let others = [("background", &self.background, BACKGROUND), ("ignore", &self.ignore, IGNORED)];
        let others = others.map(|(key, values, code)| (key.to_owned(), values, code));
        let mut meanings = HashMap::new();
        for (key, values, code) in labels.chain(others) {
            for &value in values {
                if let Some(other) = meanings.insert(value, key.clone()) {
                    return wrong(key, format!("{value} is listed in {other} already"));
                }
                codes.insert(value.0, code);
            }
            let named = key.strip_prefix("labels.");
            if values.is_empty() && named.is_some_and(|name| name != self.unlisted) {
                return wrong(key, "no value of a mask means it: list one");
            }
        }
        let unlisted = match (self.unlisted.as_str(), self.labels.position(&self.unlisted)) {
            ("error", _) => None,
            ("background", _) => Some(BACKGROUND),
            ("ignore", _) => Some(IGNORED),
            (_, Some(label)) => Some(FIRST_LABEL + label as u8),
            (text, None) => return wrong("unlisted", format!("`{text}`: error, background, ignore or a label is accepted")),
        };
        Ok((codes, unlisted))
    }

    fn class(&self, key: &str, class: &str) -> Result<usize, Wrong> {
        let known = || self.classes.names().collect::<Vec<_>>().join(", ");
        self.classes.position(class).map_or_else(|| wrong(key, format!("no class `{class}`: there are {}", known())), Ok)
    }

    /// The class of each combination of labels.
    fn combine(&self) -> Result<Vec<usize>, Wrong> {
        let mut classes = vec![None; 1 << self.labels.0.len()];
        for (i, Combination { present, class }) in self.combinations.iter().enumerate() {
            let key = format!("combinations[{i}]");
            let mut index = 0;
            for label in present {
                let known = || self.labels.names().collect::<Vec<_>>().join(", ");
                match self.labels.position(label) {
                    None => return wrong(key, format!("no label `{label}`: there are {}", known())),
                    Some(label_index) if index & (1 << label_index) != 0 => return wrong(key, format!("`{label}` comes twice")),
                    Some(label_index) => index |= 1 << label_index,
                }
            }
            let class = self.class(&key, class)?;
            if classes[index].replace(class).is_some() {
                return wrong(key, format!("[{}] is listed already", present.join(", ")));
            }
        }
        let other = self.other.as_ref().map(|class| self.class("other", class)).transpose()?;
        let missing = classes.iter().position(Option::is_none);
        match (missing, other) {
            (None, Some(_)) => wrong("other", "all combinations are listed, so that there is no other: take the line away"),
            (Some(index), None) => {
                let labels: Vec<&str> =
                    self.labels.names().enumerate().filter(|(i, _)| index & (1 << i) != 0).map(|(_, n)| n).collect();
                wrong(
                    "combinations",
                    format!("[{}] has no class: list it, or give `other: CLASS` for what is not listed", labels.join(", ")),
                )
            }
            (_, other) => Ok(classes.into_iter().filter_map(|class| class.or(other)).collect()),
        }
    }
}
