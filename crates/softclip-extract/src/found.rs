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

/// An image's objects, the most certain first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The objects.
    pub objects: Vec<Object>,
    /// Their appearance `[objects, F]` row by row, where the origin brings it: F = 2,048 from VinVL.
    pub appearance: Option<Vec<f32>>,
    /// Finished region features `[R, F + 4]` row by row and their F + 4, where the origin has nothing else.
    pub regions: Option<(usize, Vec<f32>)>,
}

/// Objects that were found before: a file of annotations or of another detector's features.
pub trait Objects: Send + Sync {
    /// The objects of the image with this key and upright (width, height); none where the file does not name the image.
    ///
    /// # Errors
    /// What the file says of this image cannot be used: what and where.
    fn find(&self, key: &str, size: (u32, u32)) -> Result<Option<Found>, String>;

    /// One line: what kind of file, and how many images it names.
    fn describe(&self) -> String;

    /// The files: what tells whether the same are meant later.
    fn paths(&self) -> Vec<&std::path::Path>;
}

impl std::fmt::Debug for dyn Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}
