//! The worked examples of docs/format.md.
//!
//! An example is a fenced block that begins with "```hex" and a name; each line holds hex bytes, then
//! optionally two spaces and a comment. Tests of the format's parts look up theirs by name.
