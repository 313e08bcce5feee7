//! Sentences that name a class.

use std::collections::HashMap;

use softclip_data::source::Source;
use softclip_io::{TextError, read_text};

use crate::EvalError;
use crate::published::{PUBLISHED, published, published_source};

/// The seven templates of ImageNet's that CLIP's authors found by forward selection.
const IMAGENET7: [&str; 7] = [
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
];

/// Templates with `{}` for the class, and names of classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompts {
    /// The set's name, or the file.
    pub name: String,
    /// At least one.
    pub templates: Vec<String>,
    /// Names in place of those that the data set has.
    pub classes: Option<ClassNames>,
}

impl Prompts {
    /// What is asked for, or what suits the data set. `prompts` is `clip` (the templates that CLIP's authors published for the data set,
    /// or that come with it), or what [`Prompts::named`] takes; by default `clip` where the data set has such, else `simple`.
    /// `classnames` is a published set's name or a file; by default CLIP's names for a published data set, else the data set's own.
    ///
    /// # Errors
    /// A file cannot be read or lacks a class, a line is wrong, or there is no `clip` for the data set.
    pub fn suited(source: &dyn Source, prompts: Option<&str>, classnames: Option<&str>) -> Result<Self, EvalError> {
        let set = published_source(source);
        let own = set.map(|set| lines(set.templates)).or_else(|| source.templates().map(<[String]>::to_vec));
        let mut found = match (prompts, own) {
            (None | Some("clip"), Some(templates)) => Self { name: "clip".to_owned(), templates, classes: None },
            (Some("clip"), None) => {
                let known = PUBLISHED.map(|set| set.name).join(", ");
                let why = format!("only published data sets have such ({known}): take imagenet80, imagenet7, simple or a file");
                return Err(EvalError::Prompts { name: "clip".to_owned(), why });
            }
            (prompts, _) => Self::named(prompts.unwrap_or("simple"))?,
        };
        found.classes = match classnames {
            Some(name) => Some(ClassNames::named(name)?),
            None => {
                let named = set.map(|set| ClassNames::parse(set.name, set.classnames)).transpose()?;
                named.map(|classes| ClassNames { own: true, ..classes })
            }
        };
        if let (Some(classes), Some(keys)) = (&found.classes, source.class_keys()) {
            classes.ids(keys)?;
        }
        Ok(found)
    }

    /// `simple` ("a photo of a {}."), `imagenet80`, `imagenet7`, or a file with one template per line or a JSON list of templates
    /// (`{}` or CLIP_benchmark's `{c}` is replaced by the class); the data set's own names of classes.
    ///
    /// # Errors
    /// The file cannot be read; a template has no place for the class.
    pub fn named(name: &str) -> Result<Self, EvalError> {
        let wrong = |why: String| EvalError::Prompts { name: name.to_owned(), why };
        let templates: Vec<String> = match (name, published("imagenet1k")) {
            ("simple", _) => vec!["a photo of a {}.".to_owned()],
            ("imagenet80", Some(imagenet)) => lines(imagenet.templates),
            ("imagenet7", _) => IMAGENET7.map(str::to_owned).to_vec(),
            _ => {
                let text = read_text(name)
                    .map_err(|e| wrong(format!("neither clip, simple, imagenet80, imagenet7 nor a readable file ({e})")))?;
                templates(&text).map_err(wrong)?
            }
        };
        if templates.is_empty() {
            Err(wrong("the file has no template".to_owned()))
        } else {
            Ok(Self { name: name.to_owned(), templates, classes: None })
        }
    }

    /// All sentences of a class.
    pub fn of<'a>(&'a self, class: &'a str) -> impl Iterator<Item = String> + 'a {
        self.templates.iter().map(move |template| template.replace("{}", class))
    }
}

/// The templates of a file: one per line, or a JSON list.
fn templates(text: &str) -> Result<Vec<String>, String> {
    let template = |place: &dyn std::fmt::Display, text: &str| match text.trim().replace("{c}", "{}") {
        text if text.contains("{}") => Ok(text),
        text => Err(format!("{place}: `{text}` has no {{}} for the class")),
    };
    // A template may begin with a bracket, but hardly with a bracket and a quote.
    let mut begin = text.trim_start().chars().filter(|c| !c.is_whitespace());
    match (begin.next(), begin.next()) {
        (Some('['), Some('"')) => {
            let found: Vec<String> = serde_json::from_str(text)
                .map_err(|e| format!("neither one template per line nor a JSON list of templates: {e}"))?;
            found.iter().zip(1..).map(|(text, number)| template(&format_args!("template {number}"), text)).collect()
        }
        (Some('['), Some('\'')) => {
            Err("a list in Python's notation: write one template per line, or JSON with double quotes".to_owned())
        }
        (Some('{'), Some('"')) => Err("a JSON object: write one template per line, or a JSON list of templates".to_owned()),
        _ => {
            let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
            lines.map(|(line, number)| template(&format_args!("line {number}"), line)).collect()
        }
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Names of classes by the data set's own keys, so that no change of order or line can give a class another's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassNames {
    /// A published set's name, or the file.
    pub name: String,
    /// Whether they are what the data set has where nothing else is asked for.
    pub own: bool,
    /// Key and name, in the order of the result.
    pub entries: Vec<(String, String)>,
}

impl ClassNames {
    /// Of a published set (`imagenet1k`), or a file with a key, a tab and a name a line.
    ///
    /// # Errors
    /// The file cannot be read; a line has no tab; a key comes twice.
    pub fn named(name: &str) -> Result<Self, EvalError> {
        if let Some(set) = published(name) {
            return Self::parse(name, set.classnames);
        }
        let known = PUBLISHED.map(|set| set.name).join(", ");
        let wrong = |e: TextError| EvalError::Prompts {
            name: name.to_owned(),
            why: format!("neither a readable file ({e}) nor one of {known}"),
        };
        Self::parse(name, &read_text(name).map_err(wrong)?)
    }

    fn parse(name: &str, text: &str) -> Result<Self, EvalError> {
        let wrong =
            |line: usize, why: String| EvalError::Prompts { name: name.to_owned(), why: format!("line {}: {why}", line + 1) };
        let mut entries: Vec<(String, String)> = Vec::new();
        let mut seen = HashMap::new();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let pair = line.split_once('\t').map(|(key, class)| (key.trim(), class.trim()));
            let Some((key, class)) = pair.filter(|(key, class)| !key.is_empty() && !class.is_empty()) else {
                return Err(wrong(i, format!("expected the data set's key of the class, a tab, and a name; found `{line}`")));
            };
            if let Some(first) = seen.insert(key.to_owned(), i) {
                return Err(wrong(i, format!("class {key} stands in line {}, too", first + 1)));
            }
            entries.push((key.to_owned(), class.to_owned()));
        }
        Ok(Self { name: name.to_owned(), own: false, entries })
    }

    /// For each of a data set's classes its place here. There may be more names than the data set has classes.
    ///
    /// # Errors
    /// A class has no name.
    pub fn ids(&self, keys: &[String]) -> Result<Vec<usize>, EvalError> {
        let places: HashMap<&str, usize> = self.entries.iter().enumerate().map(|(i, (key, _))| (key.as_str(), i)).collect();
        let found: Vec<Option<usize>> = keys.iter().map(|key| places.get(key.as_str()).copied()).collect();
        if let Some(first) = found.iter().position(Option::is_none) {
            let missing = found.iter().filter(|place| place.is_none()).count();
            let why = format!("{missing} of the data set's {} classes have no name, {} the first", keys.len(), keys[first]);
            return Err(EvalError::Prompts { name: self.name.clone(), why });
        }
        Ok(found.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests;
