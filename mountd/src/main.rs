//! atelier
fn main() {}
