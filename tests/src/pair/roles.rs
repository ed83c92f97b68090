//! A node's roles: waiting, serving, following, being promoted and fenced. The deciding is the core's; here it is
//! carried out, in the order of `supervisor`, `promote` and `node`.

use strongroom::{Epoch, ErrorKind, Role};
use strongroom_replication::PeerStatus;
use strongroom_replication::core::following::Following;
use strongroom_replication::core::returning::Decision;
use strongroom_replication::core::role::{self, Waiting};
use strongroom_replication::core::{Recorded, promotion};

use super::follow::Follow;
use super::net::End;
use super::node::{Check, Checked, Ctx, Node, Phase, Telling, Wait, backoff, name_of};
use super::serve::Reign;

impl Node {
    pub(super) fn wait(&mut self, followed: bool) {
        let rule = Waiting {
            followed,
            has_peer: true,
            serve_without_peer: false,
        };
        self.phase = Phase::Waiting(Wait {
            rule,
            next: self.now(),
            asking: None,
            tries: 0,
        });
    }

    pub(super) fn follow(&mut self) {
        self.phase = Phase::Following(Box::new(Follow::new(Following::default(), self.now())));
    }

    /// A waiting node hears what its peer said, or that it said nothing.
    pub(super) fn answered(&mut self, ctx: &mut Ctx, peer: Option<&PeerStatus>) -> Checked {
        let now = self.now();
        let own = self.engine.as_ref().map(role::own);
        let Phase::Waiting(wait) = &mut self.phase else {
            return Ok(());
        };
        wait.asking = None;
        wait.next = now + backoff(wait.tries);
        wait.tries += 1;
        match wait.rule.answered(own.as_ref(), peer) {
            Decision::Wait(_) => Ok(()),
            Decision::Follow => {
                ctx.note(format!("{} is to follow", name_of(self.id)));
                if let Err(e) = self.record(Recorded::Standby) {
                    return self.fail(ctx, "recording the role", &e);
                }
                if self.engine.is_some() {
                    self.follow();
                } else {
                    self.seed(ctx, None);
                }
                Ok(())
            }
            Decision::Serve { tell_peer } => {
                ctx.note(format!("{} is to serve", name_of(self.id)));
                let highest = own.map_or(Epoch::ZERO, |own| own.highest.max(own.epoch));
                if let Some(peer) = peer.filter(|peer| peer.highest_epoch > highest) {
                    return Err(format!(
                        "{} knows {highest} and serves, its peer recorded {}",
                        name_of(self.id),
                        peer.highest_epoch
                    ));
                }
                self.close_engine(ctx)?;
                match self.open(ctx, Role::Primary, true)? {
                    Ok(()) => {}
                    Err(e) if e.kind() == ErrorKind::NotPrimary => {
                        if let Err(e) = self.open(ctx, Role::Standby, false)? {
                            return self.fail(ctx, "opening", &e);
                        }
                        self.wait(true);
                        return Ok(());
                    }
                    Err(e) => return self.fail(ctx, "opening as primary", &e),
                }
                if let Err(e) = self.record(Recorded::Primary) {
                    return self.fail(ctx, "recording the role", &e);
                }
                self.begin_reign(ctx, tell_peer);
                Ok(())
            }
        }
    }

    pub(super) fn record(&self, role: Recorded) -> Result<(), strongroom_replication::Error> {
        self.dirs.as_ref().map_or(Ok(()), |dirs| dirs.record(role))
    }

    pub(super) fn begin_reign(&mut self, ctx: &mut Ctx, tell: bool) {
        self.phase = Phase::Serving;
        let Some(engine) = &self.engine else { return };
        let status = engine.status();
        if status.fenced_by.is_some() {
            return;
        }
        ctx.note(format!("{} serves in {}", name_of(self.id), status.epoch));
        self.reign = Some(Reign::new(engine, self.machine.now()));
        self.telling = tell.then(|| Telling {
            epoch: status.epoch,
            database_id: status.database_id,
            next: self.now(),
            asked: None,
            tries: 0,
        });
    }

    pub(super) fn end_reign(&mut self, ctx: &mut Ctx) {
        if let Some(mut reign) = self.reign.take() {
            reign.close(ctx, &self.machine);
        }
        if let Some(Telling {
            asked: Some((conn, _)),
            ..
        }) = self.telling.take()
        {
            ctx.net.close(conn, End::Client);
        }
    }

    /// Ends what the phase began; the engine stays.
    pub(super) fn stop_work(&mut self, ctx: &mut Ctx) -> Checked {
        self.end_reign(ctx);
        if let Phase::Waiting(Wait {
            asking: Some((conn, _)),
            ..
        }) = &self.phase
        {
            ctx.net.close(*conn, End::Client);
        }
        match std::mem::replace(&mut self.phase, Phase::Failed) {
            Phase::Following(mut follow) => {
                follow.close(ctx);
                self.drain(&mut follow)?;
            }
            Phase::Seeding(mut seed) => seed.close(ctx),
            _ => {}
        }
        Ok(())
    }

    /// An operator promotes it.
    pub fn promote(&mut self, ctx: &mut Ctx) -> Checked {
        ctx.note(format!("{} is promoted", name_of(self.id)));
        let waiting = matches!(self.phase, Phase::Waiting(_));
        self.stop_work(ctx)?;
        let (Some(engine), Some(dirs)) = (self.engine.clone(), self.dirs.clone()) else {
            return Ok(());
        };
        let before = engine.epoch_history();
        match promotion::promote(&dirs, &engine) {
            Ok(promoted) => {
                self.recorded = self.recorded.max(promoted.epoch);
                ctx.counters.add(crate::layers::counted::FAILOVERS, 1);
                ctx.note(format!("promoted in {} at {}", promoted.epoch, promoted.start));
                ctx.ledger.learn(&before, self.id)?;
                let parent = before.last().map_or(Epoch::ZERO, |e| e.epoch);
                ctx.ledger
                    .begin(promoted.epoch, self.id, parent, promoted.start)?;
                ctx.checks.push(Check::Promoted { node: self.id });
                self.begin_reign(ctx, true);
                Ok(())
            }
            Err(e) => {
                self.allow("promotion", &e)?;
                self.recorded = self.recorded.max(engine.status().highest_epoch);
                // The real one goes on in the phase it was in; a failed engine is found there.
                if engine.status().role == Role::Primary {
                    // The epoch is durable and the rest failed: only a restart helps.
                    return self.fail(ctx, "promotion half done", &e);
                }
                if waiting {
                    self.wait(false);
                } else {
                    self.follow();
                }
                Ok(())
            }
        }
    }

    /// An operator, a Hello or a caller says that a newer epoch exists.
    pub(super) fn fence(&mut self, ctx: &mut Ctx, by: Epoch) -> Checked<bool> {
        let Some(engine) = &self.engine else {
            return Ok(false);
        };
        match engine.fence(by) {
            Ok(()) => {
                ctx.note(format!("{} records {by}", name_of(self.id)));
                self.recorded = self.recorded.max(by);
                if let Phase::Waiting(wait) = &mut self.phase {
                    wait.tries = 0;
                }
                Ok(true)
            }
            Err(e) => self.allow("fencing", &e).map(|()| false),
        }
    }
}
