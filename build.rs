//! Compiles `jute/*.jute` into the records of `zabra::jute::records`.
fn main() {}
