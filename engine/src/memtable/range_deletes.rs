//! The range deletes of a memtable: a few lists of fragments, each heavier than all after it.
//!
//! A new range delete becomes a list of its own, which is merged with those before it that are no heavier: so adding
//! one costs on average a logarithm, and a reader looks into few lists (Bentley and Saxe, "Decomposable searching
//! problems", 1980). Lists are never changed: a reader takes them without a lock, and whoever has them keeps them.
//!
//! Invariant: as for inserts: who looks after an `add` returned sees it.
//!
//! Memory: deletes that overlap one another take, in fragments, up to the square of their number. It is counted, so
//! that the memtable is full the sooner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::range_delete::Fragments;
use crate::range_delete::order::Ranges;
use crate::types::{SeqNo, TenantId};

/// One list, of all tenants.
#[derive(Default)]
struct Layer {
    tenants: BTreeMap<TenantId, Arc<Fragments>>,
    weight: usize,
    memory: usize,
}

impl Layer {
    fn new(tenants: BTreeMap<TenantId, Arc<Fragments>>) -> Layer {
        let sum = |of: fn(&Fragments) -> usize| tenants.values().map(|fragments| of(fragments)).sum();
        Layer {
            weight: sum(Fragments::versions),
            memory: sum(Fragments::memory) + tenants.len() * size_of::<(TenantId, Arc<Fragments>)>(),
            tenants,
        }
    }

    fn merged(&self, other: &Layer) -> Layer {
        let mut tenants = self.tenants.clone();
        for (tenant, fragments) in &other.tenants {
            tenants
                .entry(*tenant)
                .and_modify(|mine| *mine = Arc::new(Fragments::merged([&**mine, fragments])))
                .or_insert_with(|| fragments.clone());
        }
        Layer::new(tenants)
    }
}

#[derive(Default)]
pub(super) struct RangeDeletes {
    /// Whether there is any: what a reader looks at first, and most often last.
    any: AtomicBool,
    layers: ArcSwap<Vec<Arc<Layer>>>,
    memory: AtomicUsize,
}

impl RangeDeletes {
    /// Adds deletes of one version. One caller at a time.
    pub(super) fn add(&self, tenant: TenantId, ranges: Ranges, seqno: SeqNo) {
        // Copies: a slice would keep its whole batch.
        let copy = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
        let ranges = ranges.into_iter().map(|(s, e)| (copy(s), copy(e), seqno));
        let fragments = Arc::new(Fragments::of(ranges));
        let mut newest = Layer::new(BTreeMap::from([(tenant, fragments)]));
        let mut layers = Vec::clone(&self.layers.load());
        while let Some(last) = layers.pop_if(|last| last.weight <= newest.weight) {
            newest = last.merged(&newest);
        }
        layers.push(Arc::new(newest));
        let memory = layers.iter().map(|layer| layer.memory).sum();
        self.layers.store(Arc::new(layers));
        self.memory.store(memory, Ordering::Relaxed);
        self.any.store(true, Ordering::Release);
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    pub(super) fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// The newest delete of `key` that who reads at `at` sees.
    pub(super) fn newest(&self, tenant: TenantId, key: &[u8], at: SeqNo) -> Option<SeqNo> {
        if self.is_empty() {
            return None;
        }
        let layers = self.layers.load();
        let of_tenant = layers.iter().filter_map(|layer| layer.tenants.get(&tenant));
        of_tenant.filter_map(|fragments| fragments.newest(key, at)).max()
    }

    /// The lists of one tenant as they are now.
    pub(super) fn lists(&self, tenant: TenantId) -> Vec<Arc<Fragments>> {
        if self.is_empty() {
            return Vec::new();
        }
        let layers = self.layers.load();
        let of_tenant = layers.iter().filter_map(|layer| layer.tenants.get(&tenant));
        of_tenant.cloned().collect()
    }

    /// The tenants with any, in no order, perhaps several times.
    pub(super) fn tenants(&self) -> Vec<TenantId> {
        let layers = self.layers.load();
        let tenants = layers.iter().flat_map(|layer| layer.tenants.keys());
        tenants.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::testing::Random;

    #[test]
    fn many_range_deletes_read_as_all_of_them_in_few_lists() {
        let mut random = Random(3);
        let (deletes, mut all) = (RangeDeletes::default(), Vec::new());
        let key = |n: u64| Bytes::from((n as u32).to_be_bytes().to_vec());
        assert!(deletes.is_empty() && deletes.lists(TenantId(1)).is_empty());
        for seqno in 1..600 {
            let (start, tenant) = (random.below(5000), TenantId(1 + random.below(2)));
            let range = (start, start + 1 + random.below(40), SeqNo(seqno));
            deletes.add(tenant, vec![(key(range.0), key(range.1))], range.2);
            all.push((tenant, range));
            for _ in 0..5 {
                let (k, at) = (random.below(5050), SeqNo(random.below(620)));
                let over = all
                    .iter()
                    .filter(|(t, (s, e, q))| *t == TenantId(1) && *s <= k && k < *e && *q <= at);
                let over = over.map(|(_, (.., q))| *q).max();
                assert_eq!(deletes.newest(TenantId(1), &key(k), at), over);
            }
        }
        let lists = deletes.lists(TenantId(1));
        assert!(lists.len() < 12, "{} lists", lists.len());
        let held: usize = lists.iter().map(|list| list.memory()).sum();
        assert!(deletes.memory() > held, "{} {held}", deletes.memory());
    }
}
