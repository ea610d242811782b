//! cas
