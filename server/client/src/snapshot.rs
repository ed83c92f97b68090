//! Repeatable reads.

use bytes::Bytes;

use crate::client::Node;
use crate::error::{ClientError, Result};
use crate::many::Asked;
use crate::proto::kv as pb;
use crate::range::{Entries, RangeOptions};

/// A repeatable view of the tenant, leased from the primary: it ends some time after its last use, and with a
/// failover ([`Kind::Gone`](crate::Kind::Gone)). Never moves to another node. Dropped inside a tokio runtime, it
/// is given back in the background.
pub struct Snapshot {
    node: Node,
    id: u64,
    seqno: u64,
}

impl Snapshot {
    pub(crate) fn new(node: Node, opened: &pb::OpenSnapshotResponse) -> Snapshot {
        Snapshot {
            node,
            id: opened.snapshot_id,
            seqno: opened.seqno,
        }
    }

    /// The version it reads at.
    pub fn seqno(&self) -> u64 {
        self.seqno
    }

    /// Value of a key at the snapshot. `Gone` if the lease ended.
    pub async fn get(&self, keyspace: &str, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        let key = Bytes::copy_from_slice(key.as_ref());
        let request = pb::GetRequest {
            keyspace: keyspace.into(),
            key,
            snapshot_id: self.id,
        };
        match self.node.stub().get(self.node.request(request)).await {
            Ok(response) => Ok(response.into_inner().value),
            Err(status) => Err(ClientError::from_status(&status, false)),
        }
    }

    /// Values of many keys at the snapshot, in the order they are asked for; any number. `Gone` if the lease ended.
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keyspace: &str,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>> {
        let mut asked = Asked::new(keys);
        while let Some(request) = asked.request(keyspace, self.id) {
            match self.node.stub().get_many(self.node.request(request)).await {
                Ok(response) => asked.answer(response.into_inner())?,
                Err(status) => return Err(ClientError::from_status(&status, false)),
            }
        }
        Ok(asked.into_values())
    }

    /// Entries at the snapshot. `Gone` if the lease ended; a range that has begun goes on to its end.
    pub async fn range(&self, keyspace: &str, options: RangeOptions) -> Result<Entries> {
        let request = self.node.request(options.request(keyspace, self.id));
        match self.node.stub().range(request).await {
            Ok(response) => Ok(Entries::new(response.into_inner())),
            Err(status) => Err(ClientError::from_status(&status, false)),
        }
    }

    /// Gives it back and waits until it is.
    pub async fn release(mut self) -> Result<()> {
        release(&self.node, std::mem::take(&mut self.id)).await
    }
}

async fn release(node: &Node, snapshot_id: u64) -> Result<()> {
    match node
        .stub()
        .release_snapshot(node.request(pb::ReleaseSnapshotRequest { snapshot_id }))
        .await
    {
        Ok(_) => Ok(()),
        Err(status) => Err(ClientError::from_status(&status, false)),
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let (node, id) = (self.node.clone(), std::mem::take(&mut self.id));
        if id == 0 {
            return;
        }
        // Outside a runtime the lease ends it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { release(&node, id).await });
        }
    }
}
