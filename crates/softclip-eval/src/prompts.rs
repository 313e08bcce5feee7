//! Sentences that name a class.

use std::path::Path;

use crate::EvalError;

/// CLIP's 80 templates for ImageNet (from its published prompt notebook), in its order.
const IMAGENET80: &str = include_str!("../assets/imagenet80.txt");

/// The seven of them that its authors found by forward selection.
const IMAGENET7: [&str; 7] = [
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
];

/// Templates with `{}` for the class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompts {
    /// The set's name, or the file.
    pub name: String,
    /// At least one.
    pub templates: Vec<String>,
}

impl Prompts {
    /// `simple` ("a photo of a {}."), `imagenet80`, `imagenet7`, or a file with a template a line (`{}` or CLIP_benchmark's `{c}`
    /// stands for the class).
    ///
    /// # Errors
    /// The file cannot be read; a line has no place for the class.
    pub fn named(name: &str) -> Result<Self, EvalError> {
        let wrong = |why: String| EvalError::Prompts { name: name.to_owned(), why };
        let templates: Vec<String> = match name {
            "simple" => vec!["a photo of a {}.".to_owned()],
            "imagenet80" => IMAGENET80.lines().map(str::to_owned).collect(),
            "imagenet7" => IMAGENET7.map(str::to_owned).to_vec(),
            _ => {
                let text = std::fs::read_to_string(Path::new(name))
                    .map_err(|e| wrong(format!("neither simple, imagenet80, imagenet7 nor a readable file ({e})")))?;
                let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
                lines
                    .map(|(i, line)| match line.trim().replace("{c}", "{}") {
                        line if line.contains("{}") => Ok(line),
                        line => Err(wrong(format!("line {}: `{line}` has no {{}} for the class", i + 1))),
                    })
                    .collect::<Result<_, _>>()?
            }
        };
        if templates.is_empty() {
            Err(wrong("the file has no template".to_owned()))
        } else {
            Ok(Self { name: name.to_owned(), templates })
        }
    }

    /// All sentences of a class.
    pub fn of<'a>(&'a self, class: &'a str) -> impl Iterator<Item = String> + 'a {
        self.templates.iter().map(move |template| template.replace("{}", class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_as_many_templates_as_their_names_say() {
        let all = Prompts::named("imagenet80").unwrap();
        let mut distinct = all.templates.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 80);
        let seven = Prompts::named("imagenet7").unwrap();
        assert!(seven.templates.iter().all(|template| all.templates.contains(template)));
        assert!(all.templates.iter().all(|template| template.matches("{}").count() == 1 && template.ends_with('.')));
        assert_eq!(Prompts::named("simple").unwrap().of("red fox").collect::<Vec<_>>(), ["a photo of a red fox."]);
    }

    #[test]
    fn files_are_read_and_their_faults_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = folder.path().join("p.txt");
            std::fs::write(&path, text).unwrap();
            Prompts::named(&path.display().to_string())
        };
        assert_eq!(file("a {} here\n\nthe {c}\n").unwrap().templates, ["a {} here", "the {}"]);
        assert!(file("a {}\nnothing\n").unwrap_err().to_string().contains("line 2: `nothing` has no {}"));
        assert!(file("\n").unwrap_err().to_string().contains("no template"));
        assert!(Prompts::named("imagenet81").unwrap_err().to_string().contains("neither simple"));
    }
}
