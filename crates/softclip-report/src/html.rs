//! Text in HTML.

/// `text` with the five characters escaped that mean something in HTML text and quoted attributes; control characters that
/// HTML does not allow are dropped.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && !matches!(c, '\n' | '\t') => {}
            c => out.push(c),
        }
    }
    out
}

/// A fragment name made of `text`: lower-case letters, digits and hyphens.
pub(crate) fn slug(text: &str) -> String {
    let words: Vec<String> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect();
    if words.is_empty() { "section".to_owned() } else { words.join("-") }
}

/// A number for people: four significant digits, no trailing zeros, thousands separated, exponents only where needed.
pub(crate) fn number(x: f64) -> String {
    if !x.is_finite() {
        return x.to_string();
    }
    let size = x.abs();
    if size != 0.0 && !(1e-3..1e7).contains(&size) {
        let text = format!("{x:.2e}");
        return text.replace(".00e", "e").replace("0e", "e").replacen('-', "−", usize::from(x < 0.0));
    }
    let decimals = if size == 0.0 { 0 } else { (3 - size.log10().floor() as i32).max(0) as usize };
    let text = format!("{x:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    thousands(text)
}

/// Puts a thin space between groups of three digits from 10,000 on.
fn thousands(text: &str) -> String {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |r| ("−", r));
    let (whole, fraction) = rest.split_once('.').map_or((rest, None), |(w, f)| (w, Some(f)));
    let mut out = String::from(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && whole.len() > 4 && (whole.len() - i) % 3 == 0 {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_can_become_markup() {
        assert_eq!(escape(r#"<b a="1" b='2'>&"#), "&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;");
        assert_eq!(escape("a\u{0}b\nc\u{7f}"), "ab\nc");
    }

    #[test]
    fn slugs_are_fit_for_fragments() {
        assert_eq!(slug("Recall @ 5 — text → image"), "recall-5-text-image");
        assert_eq!(slug("!?"), "section");
    }

    #[test]
    fn numbers_are_short() {
        for (x, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.25, "0.25"),
            (3.15159, "3.152"),
            (-0.5, "−0.5"),
            (1234.5678, "1235"),
            (45300.0, "45\u{202f}300"),
            (5e-4, "5e-4"),
            (5e-3, "0.005"),
            (2.5e-6, "2.5e-6"),
            (-1e9, "−1e9"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(x), text);
        }
    }
}
