//! What of one tenant lies below the output of a compaction: older versions of its keys, and older range deletes.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::read::level::{table_for, tables_of};
use crate::table::Table;
use crate::types::TenantId;
use crate::version::Version;

/// The levels below the output, as far as they hold the tenant.
pub(super) struct Below<'a> {
    tenant: TenantId,
    levels: Vec<&'a [Arc<Table>]>,
    known: Option<Known>,
    /// A table could not be asked.
    unreadable: bool,
}

/// The last answer, which holds for keys that follow: those below `until`, or all.
struct Known {
    holds: bool,
    until: Option<Bytes>,
}

impl<'a> Below<'a> {
    pub fn new(version: &'a Version, output: usize, tenant: TenantId) -> Below<'a> {
        let levels = version
            .levels
            .iter()
            .skip(output + 1)
            .map(|tables| tables_of(tables, tenant));
        let levels = levels.filter(|tables| tables.iter().any(|table| table.contains(tenant)));
        Below {
            tenant,
            levels: levels.collect(),
            known: None,
            unreadable: false,
        }
    }

    /// Whether it is certain that nothing of `key` is below. Asked of keys in order. A table that cannot be read, which
    /// the job may do without, only makes it uncertain.
    pub fn is_free_of(&mut self, key: &[u8]) -> bool {
        let found = match self.unreadable {
            false => self.may_hold(key),
            true => Ok(true),
        };
        self.unreadable |= found.is_err();
        matches!(found, Ok(false))
    }

    /// Whether a version of `key`, or a range delete over it, may exist below. Asked of keys in order.
    pub fn may_hold(&mut self, key: &[u8]) -> Result<bool> {
        let holds_for = |known: &&Known| known.until.as_ref().is_none_or(|until| key < until);
        if let Some(known) = self.known.as_ref().filter(holds_for) {
            return Ok(known.holds);
        }
        let known = self.look(key)?;
        let holds = known.holds;
        self.known = Some(known);
        Ok(holds)
    }

    fn look(&self, key: &[u8]) -> Result<Known> {
        let mut nothing_until: Option<Bytes> = None;
        for tables in &self.levels {
            let Some(table) = table_for(tables, self.tenant, key)? else {
                continue;
            };
            match table.span(self.tenant)? {
                Some((first, end)) if first <= key && end > key => {
                    return Ok(Known {
                        holds: true,
                        until: Some(end),
                    });
                }
                Some((first, _)) if first > key => {
                    nothing_until = Some(nothing_until.map_or(first.clone(), |until| until.min(first)));
                }
                // All of it comes before the key, or the tenant is deleted.
                _ => {}
            }
        }
        Ok(Known {
            holds: false,
            until: nothing_until,
        })
    }

    /// Whether any key in `start .. end` may have something below.
    pub fn may_hold_any(&self, start: &[u8], end: &[u8]) -> Result<bool> {
        for tables in &self.levels {
            // The first that does not end before the start; one table may end with entries of others.
            if let Some(table) = table_for(tables, self.tenant, start)?
                && let Some((first, last)) = table.span(self.tenant)?
                && first < end
                && last > start
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
