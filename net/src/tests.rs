//! Real nodes on loopback.

mod exchange;
mod joining;
mod locks;
mod malice;
