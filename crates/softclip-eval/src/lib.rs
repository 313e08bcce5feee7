//! Retrieval, pairing and zero-shot protocols and their metrics.
