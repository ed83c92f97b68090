//! What a range asks for, and its entries as they arrive.
//!
//! Messages stay under 1 MiB, so a large value comes in pieces: an entry with `value_continues`, then entries
//! with an empty key (no user key is empty), one at the head of each following message.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

use bytes::{Bytes, BytesMut};
use tonic::Streaming;

use crate::error::{ClientError, Kind, Result};
use crate::proto::kv as pb;

/// Longest value the server can hold: more pieces than this are a broken server.
const VALUE_BYTES_MAX: usize = 64 << 20;

/// Which entries a range yields. Default: all, forwards.
#[derive(Clone)]
pub struct RangeOptions {
    start: Bound<Bytes>,
    end: Bound<Bytes>,
    limit: u64,
    reverse: bool,
    keys_only: bool,
}

impl Default for RangeOptions {
    fn default() -> RangeOptions {
        RangeOptions {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            limit: 0,
            reverse: false,
            keys_only: false,
        }
    }
}

impl RangeOptions {
    /// Everything.
    pub fn all() -> RangeOptions {
        RangeOptions::default()
    }

    /// Keys that start with `prefix`.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> RangeOptions {
        let prefix = prefix.as_ref();
        let start = match prefix {
            [] => Bound::Unbounded,
            _ => Bound::Included(Bytes::copy_from_slice(prefix)),
        };
        let end = match successor(prefix) {
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        RangeOptions {
            start,
            end,
            ..RangeOptions::default()
        }
    }

    /// Keys in `range`, as of a `BTreeMap`; a range that ends before it begins is empty.
    pub fn keys<K: AsRef<[u8]>>(range: impl RangeBounds<K>) -> RangeOptions {
        let copy = |bound: Bound<&K>| bound.map(|key| Bytes::copy_from_slice(key.as_ref()));
        RangeOptions {
            start: copy(range.start_bound()),
            end: copy(range.end_bound()),
            ..RangeOptions::default()
        }
    }

    /// At most `limit` entries; 0: all.
    #[must_use]
    pub fn limit(mut self, limit: u64) -> RangeOptions {
        self.limit = limit;
        self
    }

    /// From the upper end downwards.
    #[must_use]
    pub fn reverse(mut self) -> RangeOptions {
        self.reverse = true;
        self
    }

    /// Without values.
    #[must_use]
    pub fn keys_only(mut self) -> RangeOptions {
        self.keys_only = true;
        self
    }

    /// Both ends.
    pub(crate) fn bounds(&self) -> (Option<pb::Bound>, Option<pb::Bound>) {
        let wire = |key: &Bytes, exclusive| {
            Some(pb::Bound {
                key: key.clone(),
                exclusive,
            })
        };
        let bound = |bound: &Bound<Bytes>| match bound {
            Bound::Unbounded => None,
            Bound::Included(key) => wire(key, false),
            Bound::Excluded(key) => wire(key, true),
        };
        (bound(&self.start), bound(&self.end))
    }

    pub(crate) fn request(self, keyspace: &str, snapshot_id: u64) -> pb::RangeRequest {
        let (start, end) = self.bounds();
        pb::RangeRequest {
            keyspace: keyspace.into(),
            start,
            end,
            limit: self.limit,
            reverse: self.reverse,
            snapshot_id,
            keys_only: self.keys_only,
        }
    }
}

/// The smallest key above all that start with `prefix`; `None` if there is none.
fn successor(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end.into())
}

/// Entries of a range, as they arrive.
pub struct Entries {
    stream: Option<Streaming<pb::RangeResponse>>,
    ready: VecDeque<pb::RangeEntry>,
}

impl Entries {
    pub(crate) fn new(stream: Streaming<pb::RangeResponse>) -> Entries {
        Entries {
            stream: Some(stream),
            ready: VecDeque::new(),
        }
    }

    /// The next entry; `None` after the last. An error ends it: begin again after the last key seen.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let result = self.assemble().await;
        if !matches!(result, Ok(Some(_))) {
            self.stream = None;
            self.ready.clear();
        }
        result
    }

    async fn assemble(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let Some(first) = self.entry().await? else {
            return Ok(None);
        };
        if !first.value_continues {
            return Ok(Some((first.key, first.value)));
        }
        let broken = || {
            ClientError::new(
                Kind::Internal,
                "the server sent a value in pieces that do not fit",
            )
        };
        let mut value = BytesMut::from(first.value);
        loop {
            let piece = self.entry().await?.ok_or_else(broken)?;
            if !piece.key.is_empty() || value.len() + piece.value.len() > VALUE_BYTES_MAX {
                return Err(broken());
            }
            value.extend_from_slice(&piece.value);
            if !piece.value_continues {
                return Ok(Some((first.key, value.freeze())));
            }
        }
    }

    async fn entry(&mut self) -> Result<Option<pb::RangeEntry>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            let Some(stream) = &mut self.stream else {
                return Ok(None);
            };
            match stream.message().await {
                Ok(Some(message)) => self.ready.extend(message.entries),
                Ok(None) => return Ok(None),
                Err(status) => return Err(ClientError::from_status(&status, false)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_then_bounds_hold_exactly_its_keys() {
        assert_eq!(successor(b"a"), Some(Bytes::from_static(b"b")));
        assert_eq!(successor(b"a\xff\xff"), Some(Bytes::from_static(b"b")));
        assert_eq!(successor(b"\xff\xff"), None);
        assert_eq!(successor(b""), None);
        let all = RangeOptions::prefix("").request("k", 0);
        assert_eq!((all.start, all.end), (None, None));
    }
}
