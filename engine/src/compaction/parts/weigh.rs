//! How much of a compaction's inputs lies where, told by directories and the indexes of large runs.

use std::sync::Arc;

use super::{Bound, Part, Piece, cut};
use crate::error::Result;
use crate::table::Table;

/// A part's share is told to about one in so many.
const GRAINS: u64 = 16;

/// The parts that a compaction of `inputs` is carried out in: at most `most`, none with less than about `least` bytes.
///
/// Reads the tops of the indexes of tenants that have a good deal of it, which the parts read as well. Errors as
/// when their entries are read.
pub(crate) fn parts_of(inputs: &[(usize, Arc<Table>)], most: usize, least: u64) -> Result<Vec<Part>> {
    let total: u64 = inputs.iter().map(|(_, table)| table.meta().bytes).sum();
    let mut pieces = Vec::new();
    if most > 1 && total / 2 >= least {
        let grain = (total / GRAINS / most as u64).max(1);
        for (_, table) in inputs {
            weigh(table, grain, &mut pieces)?;
        }
    }
    Ok(cut(pieces, most, least))
}

/// Adds what `table` has, in pieces of about `grain` bytes where it is told so finely. Nothing is known of a large run
/// of a destroyed tenant, and nothing of it is written.
fn weigh(table: &Arc<Table>, grain: u64, pieces: &mut Vec<Piece>) -> Result<()> {
    let mut small: Option<Piece> = None;
    for run in table.tenants() {
        if run.bytes >= grain {
            pieces.extend(small.take());
            let of_run = table.pieces(run.tenant, grain)?;
            pieces.extend(of_run.into_iter().map(|(separator, bytes)| Piece {
                end: match separator {
                    Some(separator) => Bound::at(run.tenant, &separator),
                    None => Bound::behind(run.tenant),
                },
                bytes,
            }));
            continue;
        }
        let bytes = small.map_or(0, |piece| piece.bytes) + run.bytes;
        let piece = Piece {
            end: Bound::behind(run.tenant),
            bytes,
        };
        small = if bytes < grain {
            Some(piece)
        } else {
            pieces.push(piece);
            None
        };
    }
    pieces.extend(small);
    Ok(())
}
