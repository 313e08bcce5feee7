//! What is known of an image's objects, wherever it comes from.

/// One object of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its class's name.
    pub name: String,
    /// Its attributes, the most certain first; none where the origin knows none.
    pub attributes: Vec<String>,
    /// How certain the origin is, in [0, 1]; 1 for what people drew.
    pub confidence: f32,
    /// Left, top, right, bottom in pixels of the upright image; none where the origin tells no place.
    pub xyxy: Option<[f32; 4]>,
}

/// Numbers of a box, behind a region's appearance.
const BOX: usize = 4;

/// An image's objects, the most certain first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The objects.
    pub objects: Vec<Object>,
    /// Whether the origin tells of no objects at all, but of regions alone; not the same as having found none.
    pub unnamed: bool,
    /// Their appearance `[objects, F]` row by row, where the origin brings it: F = 2,048 from VinVL.
    pub appearance: Option<Vec<f32>>,
    /// Finished region features `[R, F + 4]` row by row and their F + 4, where the origin has nothing else.
    pub regions: Option<(usize, Vec<f32>)>,
}

impl Found {
    /// Whether regions need a network: the origin brings none.
    pub fn wants_appearance(&self) -> bool {
        self.appearance.is_none() && self.regions.is_none()
    }

    /// Boxes of the `most` most certain objects that have one.
    pub fn boxes(&self, most: usize) -> impl Iterator<Item = [f32; 4]> {
        self.objects.iter().filter_map(|object| object.xyxy).take(most)
    }

    /// Region features of an image of (width, height): their width and `[R, F + 4]` row by row, appearance and box as fractions of the
    /// image, of `most` regions. `made` is F and the appearance that a network made of [`Found::boxes`]; none where there is nothing to
    /// make regions of.
    ///
    /// # Errors
    /// Features of an object without a box; a number that f16 cannot hold.
    pub fn regions(
        &self,
        size: (u32, u32),
        most: usize,
        made: Option<(usize, &[f32])>,
    ) -> Result<Option<(usize, Vec<f32>)>, String> {
        let n = self.objects.len();
        let (width, rows) = match (&self.regions, &self.appearance, made) {
            (Some((width, rows)), ..) => {
                return finite(rows[..rows.len().min(most.saturating_mul(*width))].to_vec()).map(|rows| Some((*width, rows)));
            }
            // An image without objects has an array without rows.
            (_, Some(_), _) if n == 0 => return Ok(Some((BOX, Vec::new()))),
            (_, Some(_), _) if self.objects.iter().any(|object| object.xyxy.is_none()) => {
                return Err("features of an object without a box".to_owned());
            }
            (_, Some(rows), _) => (rows.len() / n, &rows[..]),
            (_, None, Some((width, rows))) => (width, rows),
            (_, None, None) => return Ok(None),
        };
        let (w, h) = (size.0 as f32, size.1 as f32);
        let mut out = Vec::with_capacity(most.min(n) * (width + BOX));
        for (row, [l, t, r, b]) in rows.chunks_exact(width.max(1)).zip(self.boxes(most)) {
            out.extend_from_slice(row);
            out.extend([l / w, t / h, r / w, b / h]);
        }
        finite(out).map(|out| Some((width + BOX, out)))
    }
}

/// As f16 stores them.
fn finite(rows: Vec<f32>) -> Result<Vec<f32>, String> {
    match rows.iter().position(|&x| !half::f16::from_f32(x).is_finite()) {
        Some(at) => Err(format!("number {at} of its region features is {}, which f16 cannot hold", rows[at])),
        None => Ok(rows),
    }
}

/// Entries of a file of objects that cannot be used, of one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The cause in snake_case: `unknown_category`, `unknown_image` or `bad_box`.
    pub cause: &'static str,
    /// Number of entries.
    pub count: usize,
    /// The first of them: where and why.
    pub first: String,
}

/// Objects that were found before: a file of annotations or of another detector's features.
pub trait Objects: Send + Sync {
    /// The objects of the image with this key and upright (width, height); none where the file does not name the image.
    ///
    /// # Errors
    /// What the file says of this image cannot be used: what and where.
    fn find(&self, key: &str, size: (u32, u32)) -> Result<Option<Found>, String>;

    /// Adds the number of the entry that a key means, one for each file.
    ///
    /// # Errors
    /// Several entries may be meant.
    fn entries(&self, key: &str, numbers: &mut Vec<Option<usize>>) -> Result<(), String>;

    /// One line: what kind of file, and how many images it names.
    fn describe(&self) -> String;

    /// What the files hold and cannot be used, by cause; none for most kinds of files.
    fn faults(&self) -> Vec<Fault> {
        Vec::new()
    }

    /// The files: what tells whether the same are meant later.
    fn paths(&self) -> Vec<&std::path::Path>;
}

impl std::fmt::Debug for dyn Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}
