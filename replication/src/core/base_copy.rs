//! The order of a base copy's messages, and whose base copy is taken. Pure.
//!
//! ```text
//! Begin, then for each file: File, its bytes in order; then End, with the totals that Begin announced
//! ```

use std::sync::Arc;

use bytes::Bytes;
use strongroom::{Epoch, Lsn};

use super::message::FromBase;
use crate::error::{Error, ErrorKind};
use crate::hooks::{planted, rare};

/// A base copy that arrived whole, in the node's `incoming` directory, not yet in place.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub database_id: [u8; 16],
    pub epoch: Epoch,
    pub lsn: Lsn,
    pub bytes: u64,
}

/// A piece of a file on its way to the disk.
pub struct Piece {
    pub name: Arc<str>,
    pub offset: u64,
    pub bytes: Bytes,
}

/// The order of a base copy's messages.
#[derive(Default)]
pub struct Check {
    /// The database it must be of, and the lowest epoch its primary may be of.
    expected: Option<([u8; 16], Epoch)>,
    begin: Option<Received>,
    files_announced: u64,
    bytes_announced: u64,
    files: u64,
    bytes: u64,
    file: Option<(Arc<str>, u64, u64)>,
}

/// What to do with a message that was in order.
pub enum Step {
    /// Put it on the disk.
    Write(Piece),
    /// Nothing yet.
    More,
    /// It arrived whole.
    Done(Received),
}

/// What rule of the order was broken.
#[derive(Debug)]
struct Malformed(&'static str);

impl Check {
    /// `expected`: another database is refused, and so is an older primary.
    pub fn new(expected: Option<([u8; 16], Epoch)>) -> Check {
        Check {
            expected,
            ..Check::default()
        }
    }

    /// Whether the first message came.
    pub fn begun(&self) -> bool {
        self.begin.is_some()
    }

    /// Bytes of files so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next message.
    ///
    /// - Errors: `Protocol` (out of order), `WrongDatabase`, `Refused` (an old primary).
    pub fn take(&mut self, message: FromBase) -> Result<Step, Error> {
        if let (
            FromBase::Begin {
                database_id, epoch, ..
            },
            Some((id, lowest)),
        ) = (&message, self.expected)
        {
            if *database_id != id {
                return Err(Error::new(
                    ErrorKind::WrongDatabase,
                    "the peer holds another database",
                ));
            }
            if *epoch < lowest && !planted!(CopyOfOlderPrimary) {
                rare!(BaseCopyOfOldPrimary);
                return Err(Error::new(ErrorKind::Refused, "the peer is an old primary"));
            }
        }
        self.in_order(message).map_err(|Malformed(what)| {
            rare!(BaseCopyMalformed);
            let text = format!("the peer broke the protocol: {what}");
            Error::new(ErrorKind::Protocol, text)
        })
    }

    fn in_order(&mut self, message: FromBase) -> Result<Step, Malformed> {
        let Some(begin) = self.begin else {
            let FromBase::Begin {
                database_id,
                epoch,
                lsn,
                files,
                bytes,
            } = message
            else {
                return Err(Malformed("a base copy without its beginning"));
            };
            (self.files_announced, self.bytes_announced) = (files, bytes);
            self.begin = Some(Received {
                database_id,
                epoch,
                lsn,
                bytes,
            });
            return Ok(Step::More);
        };
        let file_open = self.file.as_ref().is_some_and(|(_, at, len)| at < len);
        match message {
            FromBase::File { name, bytes } if !file_open && self.files < self.files_announced => {
                let room = self.bytes_announced - self.bytes;
                if bytes > room {
                    return Err(Malformed("more bytes than announced"));
                }
                self.files += 1;
                let name: Arc<str> = name.into();
                self.file = Some((name.clone(), 0, bytes));
                // An empty file exists too.
                Ok(if bytes == 0 {
                    Step::Write(Piece {
                        name,
                        offset: 0,
                        bytes: Bytes::new(),
                    })
                } else {
                    Step::More
                })
            }
            FromBase::Chunk { offset, bytes } => {
                let Some((name, at, len)) = &mut self.file else {
                    return Err(Malformed("a chunk without a file"));
                };
                let count = bytes.len() as u64;
                if offset != *at || count > *len - *at {
                    return Err(Malformed("a chunk out of order"));
                }
                *at += count;
                self.bytes += count;
                Ok(Step::Write(Piece {
                    name: name.clone(),
                    offset,
                    bytes,
                }))
            }
            FromBase::End { files, bytes } => {
                let same = files == self.files && bytes == self.bytes;
                let whole = self.files == self.files_announced && self.bytes == self.bytes_announced;
                if file_open || !same || !whole {
                    return Err(Malformed("a base copy that is not whole"));
                }
                Ok(Step::Done(begin))
            }
            FromBase::Begin { .. } | FromBase::File { .. } => Err(Malformed("base copy out of order")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(files: u64, bytes: u64) -> FromBase {
        FromBase::Begin {
            database_id: [1; 16],
            epoch: Epoch::FIRST,
            lsn: Lsn(9),
            files,
            bytes,
        }
    }

    fn file(name: &str, bytes: u64) -> FromBase {
        FromBase::File {
            name: name.into(),
            bytes,
        }
    }

    fn chunk(offset: u64, len: usize) -> FromBase {
        FromBase::Chunk {
            offset,
            bytes: Bytes::from(vec![0; len]),
        }
    }

    fn run(messages: Vec<FromBase>) -> Result<bool, Error> {
        let mut check = Check::default();
        let mut done = false;
        for message in messages {
            done = matches!(check.take(message)?, Step::Done(_));
        }
        Ok(done)
    }

    #[test]
    fn order_table() {
        let end = |files, bytes| FromBase::End { files, bytes };
        let fine = [
            vec![begin(0, 0), end(0, 0)],
            vec![begin(1, 0), file("CURRENT", 0), end(1, 0)],
            vec![
                begin(2, 5),
                file("a", 3),
                chunk(0, 2),
                chunk(2, 1),
                file("b", 2),
                chunk(0, 2),
                end(2, 5),
            ],
        ];
        for messages in fine {
            assert!(run(messages.clone()).unwrap(), "{messages:?}");
        }
        let broken = [
            vec![file("a", 1)],
            vec![chunk(0, 1)],
            vec![end(0, 0)],
            vec![begin(1, 1), begin(1, 1)],
            vec![begin(1, 1), chunk(0, 1)],
            vec![begin(1, 1), file("a", 2)],
            vec![begin(1, 1), file("a", u64::MAX)],
            vec![begin(1, 2), file("a", 2), chunk(1, 1)],
            vec![begin(1, 2), file("a", 2), chunk(0, 3)],
            vec![begin(1, 2), file("a", 2), chunk(0, 1), chunk(0, 1)],
            vec![begin(2, 2), file("a", 2), chunk(0, 1), file("b", 0)],
            vec![begin(1, 0), file("a", 0), file("b", 0)],
            vec![begin(1, 2), file("a", 2), chunk(0, 1), end(1, 2)],
            vec![begin(2, 0), file("a", 0), end(2, 0)],
            vec![begin(2, 0), file("a", 0), end(1, 0)],
            vec![begin(1, 2), file("a", 1), chunk(0, 1), end(1, 1)],
        ];
        for messages in broken {
            run(messages.clone()).expect_err(&format!("{messages:?}"));
        }
    }

    #[test]
    fn base_copy_of_another_database_or_an_older_primary_then_refused() {
        let outcome = |id, lowest| {
            let begun = Check::new(Some((id, Epoch(lowest)))).take(begin(0, 0));
            begun.map(drop).map_err(|e| e.kind())
        };
        assert_eq!(outcome([1; 16], Epoch::FIRST.0), Ok(()));
        assert_eq!(outcome([1; 16], Epoch::FIRST.0 + 1), Err(ErrorKind::Refused));
        assert_eq!(outcome([2; 16], Epoch::FIRST.0), Err(ErrorKind::WrongDatabase));
    }
}
