//! Objects that were found before, from files.
