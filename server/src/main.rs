mod cli;
mod drill;
fn main() {}
