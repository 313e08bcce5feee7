//! Tables of pairs: CSV, TSV and their kin, read row by row.

mod job;
mod rows;

use std::path::{Path, PathBuf};

pub use job::Job;
use rows::Records;
pub use rows::Row;

use crate::error::{Error, Result};

const IMAGE_COLUMNS: [&str; 11] =
    ["image", "url", "filepath", "image_path", "path", "image_url", "image_name", "file_name", "filename", "file", "img"];
const CAPTION_COLUMNS: [&str; 4] = ["caption", "text", "title", "sentence"];

/// The columns that scores are added as.
pub const ADDED: [&str; 3] = ["cosine", "logit", "error"];

/// Which columns are read; `None` for one found by its usual name.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// Path or address of the image: `image`, `url`, `filepath`, `image_path`, `path` and the like.
    pub image: Option<String>,
    /// The caption: `caption`, `text`, `title` or `sentence`.
    pub caption: Option<String>,
}

/// A table of pairs, open at its first row.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    records: Records,
    image: usize,
    caption: usize,
    len: Option<u64>,
}

impl Table {
    /// Opens a table; the delimiter (comma, tab, semicolon or bar) is the most frequent one in its first line. A regular file is
    /// read once from end to end beforehand: its rows are counted, and quotes that nothing closes are found before any work.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8 in its first line, has no such columns or one that scores are to be added as, or a quote
    /// is not closed (with its line).
    pub fn open(path: &Path, columns: &Columns) -> Result<Self> {
        let records = Records::open(path)?;
        let header = records.header();
        let wrong = |why: String| Error::file(path, format!("{why} (columns: {})", header.join(", ")));
        let find = |given: &Option<String>, usual: &[&str], option: &str| {
            let name = match given {
                Some(name) => header.iter().find(|column| *column == name),
                None => usual.iter().find_map(|name| header.iter().find(|column| column.eq_ignore_ascii_case(name))),
            };
            let what = given.as_ref().map_or("none of a usual name".to_owned(), |name| format!("`{name}`"));
            let name =
                name.ok_or_else(|| wrong(format!("no column for the {option}, {what}: name it with --{option}-column")))?;
            let mut all = header.iter().enumerate().filter(|(_, column)| *column == name).map(|(i, _)| i);
            match (all.next(), all.next()) {
                (Some(i), None) => Ok(i),
                _ => Err(wrong(format!("there are several columns `{name}`: rename all but one"))),
            }
        };
        let (image, caption) =
            (find(&columns.image, &IMAGE_COLUMNS, "image")?, find(&columns.caption, &CAPTION_COLUMNS, "caption")?);
        if let Some(taken) = ADDED.iter().find(|name| header.iter().any(|column| column == *name)) {
            return Err(wrong(format!("it has a column `{taken}` already, which the scores need: rename that one")));
        }
        let len = if path.is_file() { Some(count(Records::open(path)?)?) } else { None };
        Ok(Table { path: path.to_owned(), records, image, caption, len })
    }

    /// The names of its columns.
    pub fn header(&self) -> &[String] {
        self.records.header()
    }

    /// The character between its cells.
    pub fn delimiter(&self) -> u8 {
        self.records.delimiter()
    }

    /// Number of rows, faulty ones among them, where the file could be read beforehand.
    pub fn rows(&self) -> Option<u64> {
        self.len
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next row as it stands, faulty or not.
    ///
    /// # Errors
    /// The file cannot be read on, or a quote is not closed.
    pub fn next_row(&mut self) -> Result<Option<Row>> {
        self.records.next()
    }

    /// Image and caption of a row, white space around them taken off.
    ///
    /// # Errors
    /// What is wrong with the row.
    pub fn pair<'r>(&self, row: &'r Row) -> std::result::Result<(&'r str, &'r str), String> {
        if let Some(fault) = &row.fault {
            return Err(fault.clone());
        }
        let cell = |column: usize| {
            let name = &self.header()[column];
            let text = std::str::from_utf8(row.cells.get(column).unwrap_or_default());
            match text.map(str::trim) {
                Ok("") => Err(format!("`{name}` is empty")),
                Ok(text) => Ok(text),
                Err(_) => Err(format!("`{name}` is not UTF-8: convert the table")),
            }
        };
        Ok((cell(self.image)?, cell(self.caption)?))
    }
}

fn count(mut records: Records) -> Result<u64> {
    let mut n = 0;
    while records.next()?.is_some() {
        n += 1;
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: impl AsRef<[u8]>, columns: &Columns) -> Result<(Table, tempfile::TempDir)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.csv");
        std::fs::write(&path, text).unwrap();
        Table::open(&path, columns).map(|table| (table, folder))
    }

    type Pair = std::result::Result<(String, String), String>;

    /// Line, image and caption of each row, or what is wrong with it.
    fn pairs(text: impl AsRef<[u8]>) -> Vec<(u64, Pair)> {
        let (mut table, _folder) = table(text, &Columns::default()).unwrap();
        let mut out = Vec::new();
        while let Some(row) = table.next_row().unwrap() {
            assert_eq!(row.cells.len(), table.header().len());
            out.push((row.line, table.pair(&row).map(|(i, c)| (i.to_owned(), c.to_owned()))));
        }
        assert_eq!(table.rows(), Some(out.len() as u64));
        out
    }

    fn ok(image: &str, caption: &str) -> Pair {
        Ok((image.to_owned(), caption.to_owned()))
    }

    #[test]
    fn tables_of_many_hands_are_read_with_their_line_numbers() {
        let plain = "image,caption\na.jpg,a cat\nb.jpg,\"two, of \"\"them\"\"\"\n";
        let expected = [(2, ok("a.jpg", "a cat")), (3, ok("b.jpg", "two, of \"them\""))];
        assert_eq!(pairs(plain), expected);
        assert_eq!(pairs(plain.trim_end()), expected);
        assert_eq!(pairs(format!("\u{feff}{plain}")), expected);
        assert_eq!(pairs(plain.replace('\n', "\r\n")), expected);
        assert_eq!(pairs("Title\tn\tURL\na cat\t1\thttps://x/a.jpg\n"), [(2, ok("https://x/a.jpg", "a cat"))]);
        assert_eq!(pairs("id;filepath;text\n1;a.jpg;a, b, c\n"), [(2, ok("a.jpg", "a, b, c"))]);
        let broken = pairs("image,caption\na.jpg,\"one\nof two\"\n\nb.jpg\nc.jpg,x,y\r\n,x\nd.jpg, \ne.jpg,last");
        let lines: Vec<u64> = broken.iter().map(|row| row.0).collect();
        assert_eq!(lines, [2, 5, 6, 7, 8, 9]);
        assert_eq!(broken[0].1, ok("a.jpg", "one\nof two"));
        for (row, part) in [(1, "1 cells, the header has 2"), (2, "3 cells"), (3, "`image` is empty"), (4, "`caption` is empty")]
        {
            assert!(broken[row].1.as_ref().unwrap_err().contains(part), "{:?}", broken[row]);
        }
        assert!(pairs(b"image,caption\n\xff.jpg,x\n")[0].1.as_ref().unwrap_err().contains("not UTF-8"));
    }

    #[test]
    fn what_cannot_be_a_table_is_refused_with_its_reason() {
        let refused = |text: &[u8], columns: &Columns| table(text, columns).unwrap_err().to_string();
        let usual = Columns::default();
        assert!(refused(b"picture,caption\n", &usual).contains("--image-column (columns: picture, caption)"));
        let named = Columns { image: Some("picture".into()), caption: Some("words".into()) };
        assert!(refused(b"picture,caption\n", &named).contains("`words`: name it with --caption-column"));
        assert!(refused(b"image,caption,image\n", &usual).contains("several columns `image`"));
        assert!(refused(b"image,caption,logit\n", &usual).contains("`logit` already"));
        assert!(refused(b"", &usual).contains("no line with the names"));
        assert!(refused(b"\xff\xfei\0m\0", &usual).contains("UTF-16"));
        assert!(refused(b"image,caption\na,b\nc,\"d\ne,f\n", &usual).contains("line 3: a quote is not closed"));
        assert!(refused(b"image\tcaption\na\t\"b\nc\td\"\n", &usual).contains("line 2: a quote is not closed"));
        assert!(Table::open(Path::new("nowhere.csv"), &usual).unwrap_err().to_string().contains("nowhere.csv"));
    }
}
