//! Entries as blocks of codec 0 and 1 have them: keys without what they share with the one before. Read, and no
//! longer written; docs/format.md section 4.3.
//!
//! ```text
//!   4  key bytes    of all keys written out in full, at most 8 MiB
//! then the entries, or with codec 1 their length and the LZ4 block; per entry:
//!   varint  shared     leading bytes in common with the key before (0 for the first)
//!   varint  rest       further bytes of the key
//!   rest    key bytes
//!   varint  seqno
//!   varint  value bytes << 2 | kind
//!   …       value
//! ```

use super::{ENTRY_BYTES_MIN, KIND_BITS, TREE_KEY_BYTES_MAX, length, push_varint, varint};
use crate::table::format::{Fields, Malformed};

/// Keys of one block, written out.
pub(in crate::table) const KEYS_BYTES_MAX: usize = 8 << 20;
const SHORT_KIND_BITS: u32 = 2;

/// The `count` entries in `fields` as blocks have them now. Whether they are in order is not asked.
pub(super) fn written_out(mut fields: Fields<'_>, count: u32, key_bytes: u32) -> Result<Vec<u8>, Malformed> {
    let short = Malformed("entries that fill the block");
    let (count, key_bytes) = (count as usize, key_bytes as usize);
    if count > fields.0.len() / ENTRY_BYTES_MIN {
        return Err(short);
    }
    if key_bytes > KEYS_BYTES_MAX {
        return Err(Malformed("at most 8 MiB of keys"));
    }
    // Of each entry a length may get two bytes longer, and the tag one.
    let mut out = Vec::with_capacity(fields.0.len() + key_bytes + 3 * count);
    let (mut key, mut keys) = (Vec::new(), 0);
    for _ in 0..count {
        let shared = length(&mut fields).ok_or(short)?;
        let rest = length(&mut fields).ok_or(short)?;
        let rest = fields.take(rest).ok_or(short)?;
        if shared > key.len() || shared.saturating_add(rest.len()) > TREE_KEY_BYTES_MAX {
            return Err(Malformed("a key made of the one before"));
        }
        key.truncate(shared);
        key.extend_from_slice(rest);
        keys += key.len();
        if keys > key_bytes {
            return Err(Malformed("keys of the stated length"));
        }
        push_varint(varint(&mut fields).ok_or(short)?, &mut out);
        let tag = varint(&mut fields).ok_or(short)?;
        let (len, kind) = (tag >> SHORT_KIND_BITS, tag & ((1 << SHORT_KIND_BITS) - 1));
        let value = usize::try_from(len).ok().and_then(|len| fields.take(len));
        let value = value.ok_or(short)?;
        push_varint(len << KIND_BITS | kind, &mut out);
        push_varint(key.len() as u64, &mut out);
        out.extend_from_slice(&key);
        out.extend_from_slice(value);
    }
    if !fields.0.is_empty() {
        return Err(short);
    }
    if keys != key_bytes {
        return Err(Malformed("keys of the stated length"));
    }
    Ok(out)
}
