//! How much of a compaction's inputs lies where, told by directories and the indexes of large runs.

use std::sync::Arc;

use super::{Bound, Part, Piece, cut};
use crate::error::Result;
use crate::table::Table;

/// A part's share is told to about one in so many.
const GRAINS: u64 = 32;

/// The parts that a compaction of `inputs` is carried out in: at most `most`, none with less than about `least` bytes.
///
/// Reads indexes of tenants that have a good deal of it, as the parts do too, by way of the cache: of large compactions the
/// tops alone. Errors as when their entries are read.
pub(crate) fn parts_of(inputs: &[(usize, Arc<Table>)], most: usize, least: u64) -> Result<Vec<Part>> {
    let total: u64 = inputs.iter().map(|(_, table)| table.meta().bytes).sum();
    let mut pieces = Vec::new();
    if most > 1 && total / 2 >= least {
        let grain = (total / GRAINS / most as u64).max(1);
        for (_, table) in inputs {
            weigh(table, grain, &mut pieces)?;
        }
    }
    Ok(cut(&pieces, most, least))
}

/// Adds what `table` has, in pieces of about `grain` bytes where it is told so finely. Nothing is known of a large run
/// of a destroyed tenant, and nothing of it is written.
fn weigh(table: &Arc<Table>, grain: u64, pieces: &mut Vec<Piece>) -> Result<()> {
    let mut small: Option<Piece> = None;
    for run in table.tenants() {
        if run.bytes >= grain {
            pieces.extend(small.take());
            let mut from: Option<Bound> = None;
            for (key, bytes) in table.pieces(run.tenant, grain)? {
                let end = Bound::at(run.tenant, &key);
                if let Some(from) = from.replace(end.clone()) {
                    pieces.push(Piece { from, end, bytes });
                }
            }
            continue;
        }
        let mut piece = small.take().unwrap_or_else(|| Piece {
            from: Bound::before(run.tenant),
            end: Bound::before(run.tenant),
            bytes: 0,
        });
        piece.end = Bound::behind(run.tenant);
        piece.bytes = piece.bytes.saturating_add(run.bytes);
        if piece.bytes < grain {
            small = Some(piece);
        } else {
            pieces.push(piece);
        }
    }
    pieces.extend(small);
    Ok(())
}
