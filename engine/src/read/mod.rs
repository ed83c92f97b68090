//! Reading: cursors over one tenant, merged and made visible at a snapshot.

pub(crate) mod apart;
pub(crate) mod counters;
pub(crate) mod cover;
pub(crate) mod cursor;
pub(crate) mod digits;
pub(crate) mod get;
pub(crate) mod level;
pub(crate) mod merge;
pub(crate) mod range;
pub(crate) mod range_cost;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod uncovered;
pub(crate) mod visible;
