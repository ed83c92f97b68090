//! Many keys of one keyspace, asked for in as few calls as the limits allow.

use bytes::Bytes;

use crate::error::{ClientError, Kind, Result};
use crate::proto::kv as pb;

/// Keys of one call.
const KEYS_MAX: usize = 1024;

/// What was asked for, and how far it is answered.
pub(crate) struct Asked {
    keys: Vec<Bytes>,
    values: Vec<Option<Bytes>>,
}

impl Asked {
    pub fn new<K: AsRef<[u8]>>(keys: impl IntoIterator<Item = K>) -> Asked {
        Asked {
            keys: keys
                .into_iter()
                .map(|key| Bytes::copy_from_slice(key.as_ref()))
                .collect(),
            values: Vec::new(),
        }
    }

    /// The next call; None when all is answered.
    pub fn request(&self, keyspace: &str, snapshot_id: u64) -> Option<pb::GetManyRequest> {
        let open = self
            .keys
            .get(self.values.len()..)
            .filter(|open| !open.is_empty())?;
        Some(pb::GetManyRequest {
            keyspace: keyspace.into(),
            keys: open.iter().take(KEYS_MAX).cloned().collect(),
            snapshot_id,
        })
    }

    /// Takes the answer of the call.
    pub fn answer(&mut self, response: pb::GetManyResponse) -> Result<()> {
        let open = self.keys.len() - self.values.len();
        if response.values.is_empty() || response.values.len() > open.min(KEYS_MAX) {
            return Err(ClientError::new(
                Kind::Internal,
                "the answer is not of as many keys as were asked for",
            ));
        }
        self.values
            .extend(response.values.into_iter().map(|answer| answer.value));
        Ok(())
    }

    /// Once there is no further call.
    pub fn into_values(self) -> Vec<Option<Bytes>> {
        self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_keys_than_fit_then_the_next_call_asks_for_the_rest_and_a_wrong_count_is_an_error() {
        let mut asked = Asked::new((0..3000u32).map(u32::to_be_bytes));
        let mut calls = 0;
        while let Some(request) = asked.request("k", 7) {
            assert!(request.keys.len() <= KEYS_MAX && request.snapshot_id == 7);
            // The server answers a part.
            let values = request.keys.iter().take(1000).map(|key| pb::GetResponse {
                value: Some(key.clone()),
            });
            let values: Vec<_> = values.collect();
            let too_many = pb::GetManyResponse {
                values: [values.clone(), vec![pb::GetResponse::default(); 2048]].concat(),
            };
            assert!(asked.answer(too_many).is_err());
            assert!(asked.answer(pb::GetManyResponse::default()).is_err());
            asked.answer(pb::GetManyResponse { values }).unwrap();
            calls += 1;
        }
        assert_eq!(calls, 3);
        let expected = (0..3000u32).map(|key| Some(Bytes::copy_from_slice(&key.to_be_bytes())));
        assert!(asked.into_values().into_iter().eq(expected));
    }
}
