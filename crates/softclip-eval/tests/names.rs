//! What results call a data set that has no name of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use softclip_eval::slug;

#[test]
fn a_data_set_without_a_name_is_called_by_the_end_of_its_path() {
    for (spec, expected) in [
        ("val/*.tar", "val-tar"),
        ("folder:/data/photos/by class/val/", "data-photos-by-class-val"),
        ("folder:/mnt/disk/data/photos/by class/val/", "data-photos-by-class-val"),
        ("csv:ảnh.csv,label=kind", "ảnh-csv-label-kind"),
    ] {
        assert_eq!(slug(spec), expected);
    }
}
