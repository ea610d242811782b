//! mountd
