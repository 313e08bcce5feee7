//! Tables as people have them.

use super::*;

fn open(text: &[u8], options: TableOptions) -> Result<(TableReader, tempfile::TempDir), TableError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.csv");
    std::fs::write(&path, text).unwrap();
    TableReader::open(&path, options).map(|table| (table, folder))
}

/// Line and cells of each row, or its fault.
type Rows = Vec<(u64, Result<Vec<String>, String>)>;

fn read(text: impl AsRef<[u8]>, options: TableOptions) -> Result<Rows, String> {
    let (mut table, _folder) = open(text.as_ref(), options).map_err(|e| e.reason)?;
    table.set_image_column(0);
    let mut rows = Vec::new();
    while let Some(row) = table.next_row().map_err(|e| e.reason)? {
        assert_eq!(row.cells.len(), table.header().len());
        let cells = (0..row.cells.len()).map(|i| row.cell(i).map_or_else(|| "not UTF-8".to_owned(), str::to_owned)).collect();
        rows.push((row.line, row.fault.map_or(Ok(cells), Err)));
    }
    Ok(rows)
}

fn rows(text: impl AsRef<[u8]>) -> Rows {
    read(text, TableOptions::default()).unwrap()
}

fn refused(text: impl AsRef<[u8]>) -> String {
    let options = TableOptions { quotes_option: Some("--no-quotes"), ..TableOptions::default() };
    read(text, options).unwrap_err()
}

fn cells(cells: &[&str]) -> Result<Vec<String>, String> {
    Ok(cells.iter().map(|cell| (*cell).to_owned()).collect())
}

#[test]
fn every_delimiter_and_line_end_gives_the_same_rows() {
    let plain = "image,caption\na.jpg,one\n\nb.jpg,\"two\n\"\"x\"\"\"\nc.jpg, three \n";
    let expected = vec![(2, cells(&["a.jpg", "one"])), (4, cells(&["b.jpg", "two\n\"x\""])), (6, cells(&["c.jpg", "three"]))];
    assert_eq!(rows(plain), expected);
    assert_eq!(rows(plain.trim_end()), expected);
    assert_eq!(rows(plain.replace("image,", " image , ")), expected);
    for delimiter in ["\t", ";", "|"] {
        assert_eq!(rows(plain.replace(',', delimiter)), expected, "{delimiter:?}");
    }
    assert_eq!(rows(format!("\u{feff}{plain}")), expected);
    assert_eq!(rows(plain.replace('\n', "\r")), expected);
    let crlf = rows(plain.replace('\n', "\r\n"));
    assert_eq!(crlf[1], (4, cells(&["b.jpg", "two\r\n\"x\""])));
    assert_eq!((crlf[0].clone(), crlf[2].clone()), (expected[0].clone(), expected[2].clone()));
    let given = TableOptions { delimiter: Some(b'\t'), ..TableOptions::default() };
    assert_eq!(read("a,b\tc\n1\t2\n", given).unwrap(), [(2, cells(&["1", "2"]))]);
}

#[test]
fn a_quote_that_takes_rows_into_its_cell_is_an_error_with_its_line() {
    let open = "image,caption\na.jpg,\"Hello he said\nb.jpg,second\nc.jpg,\"another open\nd.jpg,plain\n";
    let message = refused(open);
    for part in ["line 2: a quote takes the next lines into its cell", "in line 4", "twice", "--no-quotes"] {
        assert!(message.contains(part), "{message}");
    }
    for (text, line) in [
        ("image,caption\na.jpg,one\nb.jpg,\"two\n", "line 3: a quote is not closed"),
        ("image,caption\n\r\na.jpg,\"one", "line 3: a quote is not closed"),
        ("image,caption\n\"x\ny.jpg\",\"one\n", "line 3: a quote is not closed"),
        ("image,caption\na.jpg,\"one\nb.jpg,\"two\"\n", "line 2: a quote takes the next lines"),
        ("image,caption\na.jpg,\"one\nb.jpg,he said \"two\" and\n", "line 2: a quote takes the next lines"),
        ("image\tcaption\na.jpg\t\"one\nb.jpg\ttwo\"\n", "line 2: a quote is not closed and takes a tab"),
        ("image,caption\na.jpg,\"a tv\nb.jpg,a tv of 12\"\nc.jpg,last\n", "line 2: a quote takes line 3, which looks like a row"),
        ("image,\"caption\na.jpg,one\n", "names of its columns: line 1: a quote is not closed"),
    ] {
        assert!(refused(text).contains(line), "{text:?}: {}", refused(text));
    }
}

#[test]
fn text_after_a_closing_quote_costs_its_row() {
    let inside = rows("image,caption\na.jpg,\"Hello\" he said\nb.jpg,\"x\\\"y\\\"\"\nc.jpg,say \"hi\" \nd.jpg,\"d\" \n");
    for (row, line) in [(0, 2), (1, 3)] {
        assert_eq!(inside[row].0, line);
        assert!(inside[row].1.as_ref().unwrap_err().contains("text follows the closing quote of a cell"), "{inside:?}");
    }
    assert_eq!(inside[2..], [(4, cells(&["c.jpg", "say \"hi\""])), (5, cells(&["d.jpg", "d"]))]);
}

#[test]
fn quotes_can_be_read_as_characters() {
    let off = TableOptions { quotes: false, ..TableOptions::default() };
    let text = "image\tcaption\na.jpg\t\"Hello he said\nb.jpg\tsecond\nc.jpg\t\"x\" \"\n";
    let expected =
        [(2, cells(&["a.jpg", "\"Hello he said"])), (3, cells(&["b.jpg", "second"])), (4, cells(&["c.jpg", "\"x\" \""]))];
    assert_eq!(read(text, off).unwrap(), expected);
}

#[test]
fn faulty_rows_are_returned_with_their_reason() {
    let found = rows(b"image,caption\na.jpg\nb.jpg,x,y\nc.jpg,a\0b\nd.jpg,caf\xe9\n".as_slice());
    let why = |row: usize| found[row].1.as_ref().unwrap_err().as_str();
    assert_eq!((why(0), why(1)), ("1 cells, the header has 2", "3 cells, the header has 2"));
    assert!(why(2).contains("NUL byte"));
    assert_eq!(found[3], (5, cells(&["d.jpg", "not UTF-8"])));
}

#[test]
fn a_file_that_is_no_table_is_refused_with_its_reason() {
    assert!(refused("").contains("names of its columns"));
    assert!(refused("\n\n").contains("names of its columns"));
    assert!(refused(b"\xff\xfei\0m\0,\0c\0").contains("UTF-16: save it as UTF-8"));
    assert!(refused(b"caf\xe9,b\n1,2\n").contains("not UTF-8"));
    assert!(
        TableReader::open(Path::new("nowhere.csv"), TableOptions::default()).unwrap_err().to_string().contains("nowhere.csv: ")
    );
    let column = |given| Column { role: "image", given, usual: &["image", "url"], option: "image=…" };
    let (table, _folder) = open(b"Url,x,x\n", TableOptions::default()).unwrap();
    assert_eq!(table.find(&column(None)).unwrap(), 0);
    assert!(
        table
            .find(&column(Some("x")))
            .unwrap_err()
            .reason
            .contains("several columns `x`: keep one and rename the others (columns: Url, x, x)")
    );
    let (table, _folder) = open(b"a red thing\thttp://127.0.0.1:9/0.jpg\n", TableOptions::default()).unwrap();
    let message = table.find(&column(None)).unwrap_err().reason;
    assert!(
        message.contains("no header line") && message.contains("columns: a red thing, http://127.0.0.1:9/0.jpg"),
        "{message}"
    );
}
