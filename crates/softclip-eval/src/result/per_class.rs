//! Classes and confusions as tables to read.

use std::fmt::{self, Write};

use super::EvalResult;

/// Confusions that are shown.
const SHOWN: usize = 20;

impl EvalResult {
    /// A table of the classes and one of the most frequent confusions; empty where there are no classes.
    pub fn per_class(&self) -> String {
        let mut text = String::new();
        let _ = self.write_per_class(&mut text);
        text
    }

    fn write_per_class(&self, out: &mut impl Write) -> fmt::Result {
        if self.classes.is_empty() {
            return Ok(());
        }
        let wide =
            |names: &mut dyn Iterator<Item = &String>| names.map(|name| name.chars().count()).max().unwrap_or(0).clamp(5, 40);
        let width = wide(&mut self.classes.iter().map(|class| &class.class));
        writeln!(out, "  {:<width$} {:>7} {:>7} {:>8}  most often taken for", "class", "images", "right", "recall")?;
        for class in &self.classes {
            let recall = class.recall.map_or("–".to_owned(), |recall| format!("{:.1} %", recall * 100.0));
            let wrong = class.most_wrong.as_deref().unwrap_or("");
            writeln!(out, "  {:<width$} {:>7} {:>7} {recall:>8}  {wrong}", class.class, class.images, class.right)?;
        }
        if !self.confusions.is_empty() {
            let width = wide(&mut self.confusions.iter().take(SHOWN).map(|pair| &pair.truth));
            writeln!(out, "\n  {:>6}  {:<width$}  taken for", "images", "of")?;
            for pair in self.confusions.iter().take(SHOWN) {
                writeln!(out, "  {:>6}  {:<width$}  {}", pair.count, pair.truth, pair.predicted)?;
            }
        }
        Ok(())
    }
}
