//! Real nodes on loopback.

mod exchange;
mod joining;
mod malice;
