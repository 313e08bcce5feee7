//! The text behind a source's scheme.

use super::SourceError;

/// The parts of a spec behind its scheme: files or folders, then `name=value` options.
pub(super) struct Parts<'a> {
    spec: &'a str,
    pub(super) plain: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Parts<'a> {
    pub(super) fn new(
        spec: &'a str,
        rest: &'a str,
        plain: std::ops::RangeInclusive<usize>,
        names: &[&str],
        form: &str,
    ) -> Result<Self, SourceError> {
        let mut parts = Parts { spec, plain: Vec::new(), options: Vec::new() };
        for part in rest.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((name, _)) if names.contains(&name) && parts.option(name).is_some() => {
                    return Err(parts.wrong(format!("option '{name}' stands there twice; the form is {form}")));
                }
                Some((name, value)) if names.contains(&name) => parts.options.push((name, value)),
                Some((name, _)) if !name.contains('/') => {
                    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    return Err(parts.wrong(format!("unknown option '{name}' (known: {known}); the form is {form}")));
                }
                _ => parts.plain.push(part),
            }
        }
        if plain.contains(&parts.plain.len()) { Ok(parts) } else { Err(parts.wrong(format!("the form is {form}"))) }
    }

    pub(super) fn option(&self, name: &str) -> Option<&'a str> {
        self.options.iter().find(|option| option.0 == name).map(|option| option.1)
    }

    pub(super) fn wrong(&self, reason: String) -> SourceError {
        SourceError::Spec { spec: self.spec.to_owned(), reason }
    }
}
