//! A node that takes a base copy: drives `core::base_copy` and the engine's receiver, as `bootstrap` and
//! `supervisor` do. It can be cut at every chunk.

use std::sync::Arc;
use std::time::Duration;

use strongroom::BaseCopyReceiver;
use strongroom::keys::KeyChanges;
use strongroom_replication::core::base_copy::{Check, Received, Step};
use strongroom_replication::core::role::Replaced;
use strongroom_replication::core::{Watched, remove_tree};
use strongroom_replication::{Error, ErrorKind};

use super::net::{ConnId, End, Msg};
use super::node::{Checked, Ctx, Node, PATIENCE, Phase, backoff, name_of};

/// A base copy, as often as it takes.
pub struct Seed {
    replaced: Option<Replaced>,
    retry_at: Duration,
    tries: u32,
    taking: Option<Taking>,
}

struct Taking {
    conn: ConnId,
    receiver: Option<BaseCopyReceiver>,
    keks: Arc<Watched>,
    check: Check,
    received: Option<Received>,
    heard: Duration,
}

impl Seed {
    /// Closes its connection.
    pub fn close(&mut self, ctx: &mut Ctx) {
        if let Some(taking) = self.taking.take() {
            ctx.net.close(taking.conn, End::Client);
        }
    }
}

impl Node {
    /// Begins taking base copies; with an engine still there, it goes on being readable and promotable.
    pub(super) fn seed(&mut self, ctx: &mut Ctx, replaced: Option<Replaced>) {
        ctx.counters.add("base copies begun", 1);
        self.phase = Phase::Seeding(Box::new(Seed {
            replaced,
            retry_at: self.now(),
            tries: 0,
            taking: None,
        }));
    }

    /// A unit of work.
    pub(super) fn seed_on(&mut self, ctx: &mut Ctx) -> Checked {
        let (now, id, peer) = (self.now(), self.id, self.peer);
        let Phase::Seeding(seed) = &mut self.phase else {
            return Ok(());
        };
        if let Some(taking) = &seed.taking {
            if now.saturating_sub(taking.heard) >= PATIENCE {
                return self.seed_failed(ctx, Error::new(ErrorKind::Unreachable, "the base copy stalled"));
            }
            return Ok(());
        }
        if now < seed.retry_at {
            return Ok(());
        }
        let (Some(dirs), io) = (&self.dirs, self.machine.io()) else {
            return Ok(());
        };
        let keks = Watched::new(self.machine.keys.provider());
        let incoming = dirs.incoming();
        // Whatever is there is a copy that was never put in place.
        let started = remove_tree(&io, &incoming)
            .and_then(|()| Ok(BaseCopyReceiver::start(&incoming, io, keks.clone())?));
        let receiver = match started {
            Ok(receiver) => receiver,
            Err(e) => {
                self.allow("beginning a base copy", &e)?;
                return self.seed_failed(ctx, e);
            }
        };
        let expected = seed.replaced.map(|r| (r.database_id, r.epoch));
        let request = Msg::BaseRequest {
            database_id: expected.map(|(id, _)| id),
        };
        seed.taking = Some(Taking {
            conn: ctx.net.dial(id, peer, request),
            receiver: Some(receiver),
            keks,
            check: Check::new(expected),
            received: None,
            heard: now,
        });
        Ok(())
    }

    fn seed_failed(&mut self, ctx: &mut Ctx, error: Error) -> Checked {
        let now = self.now();
        if let Phase::Seeding(seed) = &mut self.phase {
            seed.close(ctx);
            seed.retry_at = now + backoff(seed.tries);
            seed.tries += 1;
        }
        ctx.counters.add("base copies cut", 1);
        ctx.note(format!(
            "{} gives up a base copy: {:?}",
            name_of(self.id),
            error.kind()
        ));
        Ok(())
    }

    /// A message for a node that takes a base copy.
    pub(super) fn seed_hears(&mut self, ctx: &mut Ctx, conn: ConnId, msg: Msg) -> Checked {
        let (now, id, peer) = (self.now(), self.id, self.peer);
        let Phase::Seeding(seed) = &mut self.phase else {
            return Ok(());
        };
        let Some(taking) = seed.taking.as_mut().filter(|t| t.conn == conn) else {
            ctx.net.close(conn, End::Client);
            return Ok(());
        };
        taking.heard = now;
        match msg {
            Msg::Base(message) if taking.received.is_none() => match taking.check.take(message) {
                Ok(Step::More) => Ok(()),
                Ok(Step::Write(piece)) => {
                    let Some(receiver) = &mut taking.receiver else {
                        return Ok(());
                    };
                    match receiver.chunk(&piece.name, piece.offset, &piece.bytes) {
                        Ok(()) => Ok(()),
                        Err(e) => {
                            self.allow("writing a base copy", &e)?;
                            self.seed_failed(ctx, e.into())
                        }
                    }
                }
                Ok(Step::Done(received)) => {
                    // The keys come last: they then cover every tenant whose data was copied.
                    taking.received = Some(received);
                    ctx.net.close(conn, End::Client);
                    let hello = Msg::KeysHello {
                        database_id: received.database_id,
                        session: None,
                        node: name_of(id),
                        since: 0,
                        epoch: received.epoch,
                    };
                    taking.conn = ctx.net.dial(id, peer, hello);
                    Ok(())
                }
                Err(e) => self.seed_failed(ctx, e),
            },
            Msg::Keys { encoded, .. } if taking.received.is_some() => {
                let (Some(mut receiver), keks) = (taking.receiver.take(), taking.keks.clone()) else {
                    return Ok(());
                };
                let finished = KeyChanges::decode(&encoded).and_then(|changes| {
                    receiver.keys(&changes)?;
                    receiver.finish()
                });
                match finished {
                    Ok(()) => self.install(ctx, &keks),
                    Err(e) => {
                        self.allow("finishing a base copy", &e)?;
                        let _ = keks.destroy_all();
                        self.seed_failed(ctx, e.into())
                    }
                }
            }
            _ => self.seed_failed(
                ctx,
                Error::new(ErrorKind::Unreachable, "the base copy ended early"),
            ),
        }
    }

    /// Puts a received base copy in the place of the old data and opens it.
    fn install(&mut self, ctx: &mut Ctx, new: &Arc<Watched>) -> Checked {
        let Phase::Seeding(mut seed) = std::mem::replace(&mut self.phase, Phase::Failed) else {
            return Ok(());
        };
        seed.close(ctx);
        ctx.counters.add("base copies installed", 1);
        ctx.note(format!("{} installs a base copy", name_of(self.id)));
        if let Some(engine) = self.engine.take() {
            let _ = engine.close();
        }
        // What the replaced keystore was under; never what the new one is under.
        let mut keks = self.keks.take().map(|keks| keks.live()).unwrap_or_default();
        keks.retain(|version| !new.live().contains(version));
        let keep = seed
            .replaced
            .filter(|r| r.keep_wal)
            .map(|r| (r.epoch, self.now().as_millis() as u64));
        let Some(dirs) = &self.dirs else { return Ok(()) };
        if let Err(e) = dirs.install(keep, &keks) {
            return self.fail(ctx, "putting a base copy in place", &e);
        }
        self.installed(ctx)
    }
}
