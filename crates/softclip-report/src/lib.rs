//! Pages that people look at: curves and retrieval galleries, as one HTML file.
