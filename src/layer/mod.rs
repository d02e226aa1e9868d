//! What a layer is.
