//! Tables of pairs: CSV, TSV and their kin, read row by row.

mod job;

use std::path::Path;

pub use job::Job;
pub use softclip_data::table::Row;
use softclip_data::table::{Column, TableError, TableOptions, TableReader};

use crate::error::{Error, Result};

const IMAGE_COLUMNS: [&str; 11] =
    ["image", "url", "filepath", "image_path", "path", "image_url", "image_name", "file_name", "filename", "file", "img"];
const CAPTION_COLUMNS: [&str; 4] = ["caption", "text", "title", "sentence"];

/// The columns that scores are added as.
pub const ADDED: [&str; 3] = ["cosine", "logit", "error"];

/// Which columns are read, and how; `None` for a column that is found by its usual name.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// Path or address of the image: `image`, `url`, `filepath`, `image_path`, `path` and the like.
    pub image: Option<String>,
    /// The caption: `caption`, `text`, `title` or `sentence`.
    pub caption: Option<String>,
    /// Whether quotes are ordinary characters, and enclose no cells.
    pub plain_quotes: bool,
}

/// A table of pairs, open at its first row.
#[derive(Debug)]
pub struct Table {
    reader: TableReader,
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
        let options =
            TableOptions { quotes: !columns.plain_quotes, quotes_option: Some("--no-quotes"), ..TableOptions::default() };
        let mut reader = TableReader::open(path, options)?;
        let find = |role, given: &Option<String>, usual: &[&str], option| {
            reader.find(&Column { role, given: given.as_deref(), usual, option })
        };
        let image = find("image", &columns.image, &IMAGE_COLUMNS, "--image-column")?;
        let caption = find("caption", &columns.caption, &CAPTION_COLUMNS, "--caption-column")?;
        if let Some(taken) = ADDED.iter().find(|name| reader.header().iter().any(|column| column == *name)) {
            let columns = reader.header().join(", ");
            let why = "which the scores need: rename that one";
            return Err(Error::file(path, format!("it has a column `{taken}` already, {why} (columns: {columns})")));
        }
        reader.set_image_column(image);
        let len = if path.is_file() { Some(count(TableReader::open(path, options)?)?) } else { None };
        Ok(Table { reader, image, caption, len })
    }

    /// The names of its columns.
    pub fn header(&self) -> &[String] {
        self.reader.header()
    }

    /// The character between its cells.
    pub fn delimiter(&self) -> u8 {
        self.reader.delimiter()
    }

    /// Number of rows, faulty ones among them, where the file could be read beforehand.
    pub fn rows(&self) -> Option<u64> {
        self.len
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.reader.path()
    }

    /// The next row as it stands, faulty or not.
    ///
    /// # Errors
    /// The file cannot be read on, or a quote is not closed.
    pub fn next_row(&mut self) -> Result<Option<Row>> {
        Ok(self.reader.next_row()?)
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
            match row.cell(column) {
                Some("") => Err(format!("`{name}` is empty")),
                Some(text) => Ok(text),
                None => Err(format!("`{name}` is not UTF-8: convert the table")),
            }
        };
        Ok((cell(self.image)?, cell(self.caption)?))
    }
}

impl From<TableError> for Error {
    fn from(TableError { path, reason }: TableError) -> Self {
        Self::file(&path, reason)
    }
}

fn count(mut reader: TableReader) -> Result<u64> {
    let mut n = 0;
    while reader.next_row()?.is_some() {
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
    fn quotes_that_swallow_rows_are_refused_unless_they_are_characters() {
        let text = "image,caption\na.jpg,\"Hello he said\nb.jpg,second\nc.jpg,\"another open\nd.jpg,plain\n";
        let message = table(text, &Columns::default()).unwrap_err().to_string();
        assert!(message.contains("line 2: a quote") && message.contains("--no-quotes"), "{message}");
        let plain = Columns { plain_quotes: true, ..Columns::default() };
        let (mut table, _folder) = table(text, &plain).unwrap();
        assert_eq!(table.rows(), Some(4));
        let first = table.next_row().unwrap().unwrap();
        assert_eq!(table.pair(&first).unwrap(), ("a.jpg", "\"Hello he said"));
    }

    #[test]
    fn what_cannot_be_a_table_is_refused_with_its_reason() {
        let refused = |text: &[u8], columns: &Columns| table(text, columns).unwrap_err().to_string();
        let usual = Columns::default();
        assert!(refused(b"picture,caption\n", &usual).contains("--image-column (columns: picture, caption)"));
        let named = Columns { image: Some("picture".into()), caption: Some("words".into()), ..usual.clone() };
        assert!(refused(b"picture,caption\n", &named).contains("`words`: name it with --caption-column"));
        assert!(refused(b"image,caption,image\n", &usual).contains("several columns `image`"));
        assert!(refused(b"image,caption,logit\n", &usual).contains("`logit` already"));
        assert!(refused(b"", &usual).contains("a line with the names of its columns is expected"));
        assert!(refused(b"\xff\xfei\0m\0", &usual).contains("UTF-16"));
        assert!(refused(b"image,caption\na,b\nc,\"d\ne,f\n", &usual).contains("line 3: a quote is not closed"));
        assert!(refused(b"image\tcaption\na\t\"b\nc\td\"\n", &usual).contains("line 2: a quote is not closed"));
        assert!(Table::open(Path::new("nowhere.csv"), &usual).unwrap_err().to_string().contains("nowhere.csv"));
    }
}
