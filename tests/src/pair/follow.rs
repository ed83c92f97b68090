//! A node that follows: drives `core::standby` and `core::following`, as `receiver` and `keystream` do.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use strongroom::keys::KeyChanges;
use strongroom::{Engine, Lsn};
use strongroom_replication::core::following::{Ended, Following, Next};
use strongroom_replication::core::role::{self, AfterFollowing};
use strongroom_replication::core::standby::{Action, Ending, Event, StandbySession, SyncDebt};
use strongroom_replication::{Error, ErrorKind};

use super::net::{ConnId, End, Msg};
use super::node::{CALL, Checked, Ctx, Node, PATIENCE, Phase, backoff, name_of};

/// What lasts across streams.
pub struct Follow {
    following: Following,
    retry_at: Duration,
    tries: u32,
    stream: Option<Stream>,
    telling: Option<(ConnId, Duration)>,
}

/// A stream.
struct Stream {
    conn: ConnId,
    keys: Option<ConnId>,
    session: [u8; 16],
    database_id: [u8; 16],
    core: StandbySession,
    parts: VecDeque<(Lsn, Bytes)>,
    debt: SyncDebt,
}

fn unreachable(what: &str) -> Error {
    Error::new(ErrorKind::Unreachable, what.to_string())
}

impl Follow {
    /// Not connected yet.
    pub fn new(following: Following, now: Duration) -> Follow {
        Follow {
            following,
            retry_at: now,
            tries: 0,
            stream: None,
            telling: None,
        }
    }

    /// Closes its connections.
    pub fn close(&mut self, ctx: &mut Ctx) {
        if let Some(stream) = &self.stream {
            ctx.net.close(stream.conn, End::Client);
            if let Some(keys) = stream.keys {
                ctx.net.close(keys, End::Client);
            }
        }
        if let Some((conn, _)) = self.telling.take() {
            ctx.net.close(conn, End::Client);
        }
    }

    /// Whether the stream was granted.
    pub fn connected(&self) -> bool {
        self.stream.as_ref().is_some_and(|s| s.core.epoch().is_some())
    }
}

impl Node {
    /// What has arrived is appended and synced before anything else happens to the engine.
    pub(super) fn drain(&mut self, follow: &mut Follow) -> Checked<Option<Error>> {
        let (Some(stream), Some(engine)) = (&mut follow.stream, &self.engine) else {
            return Ok(None);
        };
        let work = |stream: &mut Stream| -> Result<(), strongroom::Error> {
            while let Some((first, bytes)) = stream.parts.pop_front() {
                engine.standby_append(first, &bytes)?;
            }
            engine.standby_sync().map(drop)
        };
        match work(stream) {
            Ok(()) => Ok(None),
            Err(e) => {
                self.allow("taking the rest of a stream", &e)?;
                Ok(Some(e.into()))
            }
        }
    }

    /// A unit of work: append, sync, or see what time it is.
    pub(super) fn follow_on(&mut self, ctx: &mut Ctx) -> Checked {
        let now = self.now();
        let (Phase::Following(follow), Some(engine)) = (&mut self.phase, self.engine.clone()) else {
            return Ok(());
        };
        if let Some((conn, until)) = follow.telling {
            if now >= until {
                ctx.net.close(conn, End::Client);
                follow.telling = None;
            }
            return Ok(());
        }
        let Some(stream) = &mut follow.stream else {
            if now >= follow.retry_at {
                return self.dial(ctx, &engine);
            }
            return Ok(());
        };
        if let Some((first, bytes)) = stream.parts.pop_front() {
            return match engine.standby_append(first, &bytes) {
                Ok(_) => {
                    stream.debt.appended(bytes.len(), now);
                    Ok(())
                }
                Err(e) => self.engine_failed(ctx, "appending", e),
            };
        }
        if stream.debt.due(false, now) {
            stream.debt.settled();
            return match engine.standby_sync() {
                Ok(progress) => {
                    let ordered =
                        progress.applied <= progress.durable && progress.durable <= progress.received;
                    if !ordered {
                        return Err(format!("positions out of order: {progress:?}"));
                    }
                    let actions = stream.core.step(now, Event::Synced(progress));
                    self.carry_out(ctx, actions)
                }
                Err(e) => self.engine_failed(ctx, "syncing", e),
            };
        }
        let actions = stream.core.step(now, Event::Tick);
        self.carry_out(ctx, actions)
    }

    /// Without a fault the engine takes whatever the core lets through: bytes in order, keys before records.
    fn engine_failed(&mut self, ctx: &mut Ctx, what: &str, error: strongroom::Error) -> Checked {
        self.allow(what, &error)?;
        let now = self.now();
        let Phase::Following(follow) = &mut self.phase else {
            return Ok(());
        };
        let Some(stream) = &mut follow.stream else {
            return Ok(());
        };
        stream.parts.clear();
        let actions = stream.core.step(now, Event::Failed(error.into()));
        self.carry_out(ctx, actions)
    }

    fn dial(&mut self, ctx: &mut Ctx, engine: &Engine) -> Checked {
        let now = self.now();
        let progress = match engine.standby_sync() {
            Ok(progress) => progress,
            Err(e) => {
                self.allow("syncing before Hello", &e)?;
                return self.ended(ctx, Error::from(e).into());
            }
        };
        let (status, session) = (engine.status(), ctx.net.session());
        let history = engine.epoch_history();
        let hello = Following::hello(&name_of(self.id), session, &progress, &status, history);
        let core = StandbySession::new(&hello, &progress, PATIENCE, now);
        let conn = ctx.net.dial(self.id, self.peer, Msg::Hello(hello));
        if let Phase::Following(follow) = &mut self.phase {
            follow.stream = Some(Stream {
                conn,
                keys: None,
                session,
                database_id: status.database_id,
                core,
                parts: VecDeque::new(),
                debt: SyncDebt::default(),
            });
        }
        Ok(())
    }

    fn carry_out(&mut self, ctx: &mut Ctx, actions: Vec<Action>) -> Checked {
        let now = self.now();
        for action in actions {
            let (Phase::Following(follow), Some(engine)) = (&mut self.phase, &self.engine) else {
                return Ok(());
            };
            let Some(stream) = &mut follow.stream else {
                return Ok(());
            };
            match action {
                Action::Begin { epoch, .. } => {
                    ctx.note(format!("{} follows {epoch}", name_of(self.id)));
                    follow.tries = 0;
                    let hello = Msg::KeysHello {
                        database_id: stream.database_id,
                        session: Some(stream.session),
                        node: name_of(self.id),
                        since: follow.following.keys_since(epoch),
                        epoch,
                    };
                    stream.keys = Some(ctx.net.dial(self.id, self.peer, hello));
                }
                Action::Append { first, bytes } => stream.parts.push_back((first, bytes)),
                Action::Acknowledge(ack) => {
                    let durable = engine.status().durable;
                    if ack.durable > durable {
                        return Err(format!(
                            "{} acknowledges {} and has {durable} durable",
                            name_of(self.id),
                            ack.durable
                        ));
                    }
                    if let Some(epoch) = stream.core.epoch()
                        && epoch < self.recorded
                    {
                        return Err(format!(
                            "{} recorded {} and acknowledges to a primary of {epoch}",
                            name_of(self.id),
                            self.recorded
                        ));
                    }
                    ctx.ledger.synced(self.id, ack.epoch, durable.min(ack.received));
                    self.recorded = self.recorded.max(engine.status().highest_epoch);
                    ctx.net.send(stream.conn, End::Server, Msg::Ack(ack));
                }
                Action::AcknowledgeKeys(version) => {
                    if let Some(keys) = stream.keys {
                        ctx.net.send(keys, End::Server, Msg::KeysAck(version));
                    }
                }
                Action::Heard { .. } | Action::Applied { .. } => {}
                Action::End(ending) => {
                    let _ = now;
                    return self.ended(ctx, ending);
                }
            }
        }
        Ok(())
    }

    /// A stream ended.
    fn ended(&mut self, ctx: &mut Ctx, ending: Ending) -> Checked {
        let Phase::Following(mut follow) = std::mem::replace(&mut self.phase, Phase::Failed) else {
            return Ok(());
        };
        follow.close(ctx);
        // The thread takes what has arrived, then ends; its failure says more.
        let ending = match self.drain(&mut follow)? {
            Some(worse) => match Ending::from(worse) {
                Ending::Lost(_) => ending,
                worse => worse,
            },
            None => ending,
        };
        follow.stream = None;
        let Some(engine) = self.engine.clone() else {
            return Ok(());
        };
        let status = engine.status();
        ctx.note(format!(
            "{} lost its stream at {}",
            name_of(self.id),
            status.durable
        ));
        follow.retry_at = self.now() + backoff(follow.tries);
        follow.tries += 1;
        let next = follow.following.ended(ending, status.durable);
        match next {
            Next::Retry(_) => self.phase = Phase::Following(follow),
            Next::Tell => {
                let tell = Msg::Tell {
                    database_id: status.database_id,
                    epoch: status.highest_epoch.max(status.epoch),
                };
                let conn = ctx.net.dial(self.id, self.peer, tell);
                follow.telling = Some((conn, self.now() + CALL));
                self.phase = Phase::Following(follow);
            }
            Next::Ended(ended) => return self.following_over(ctx, ended, &engine),
        }
        Ok(())
    }

    fn following_over(&mut self, ctx: &mut Ctx, ended: Ended, engine: &Engine) -> Checked {
        match role::after_following(ended, &engine.status()) {
            AfterFollowing::Fail(why) => self.fail(ctx, why, &why),
            AfterFollowing::Seed {
                replaced, readable, ..
            } => {
                ctx.note(format!(
                    "{} needs a base copy, readable {readable}",
                    name_of(self.id)
                ));
                if !readable && let Some(engine) = self.engine.take() {
                    let _ = engine.close();
                }
                self.seed(ctx, Some(replaced));
                Ok(())
            }
            AfterFollowing::Reopen(e) => {
                self.allow("an engine that must be reopened", &e)?;
                if self.reopen(ctx)? {
                    let now = self.now();
                    self.phase = Phase::Following(Box::new(Follow::new(Following::default(), now)));
                }
                Ok(())
            }
        }
    }

    /// A message for a node that follows.
    pub(super) fn follow_hears(&mut self, ctx: &mut Ctx, conn: ConnId, msg: Msg) -> Checked {
        let now = self.now();
        let (Phase::Following(follow), Some(engine)) = (&mut self.phase, &self.engine) else {
            return Ok(());
        };
        if follow.telling.is_some_and(|(c, _)| c == conn) {
            ctx.net.close(conn, End::Client);
            follow.telling = None;
            return Ok(());
        }
        let Some(stream) = follow.stream.as_mut() else {
            ctx.net.close(conn, End::Client);
            return Ok(());
        };
        let event = if conn == stream.conn {
            match msg {
                Msg::Primary(message) => Event::Message(message),
                _ => Event::Failed(unreachable("the primary ended the stream")),
            }
        } else if Some(conn) == stream.keys {
            match msg {
                Msg::Keys {
                    since,
                    version,
                    encoded,
                } => {
                    let epoch = stream.core.epoch().unwrap_or_default();
                    match follow.following.takes_keys(epoch, since, version) {
                        Err(_) if !ctx.hostile => {
                            return Err(format!(
                                "{}: a key change {since} to {version} out of order",
                                name_of(self.id)
                            ));
                        }
                        Err(e) => Event::Failed(e),
                        Ok(()) => {
                            let changes = KeyChanges::decode(&encoded);
                            match changes.and_then(|changes| engine.apply_key_changes(&changes)) {
                                Ok(()) => {
                                    let all = engine.key_changes(0).encode();
                                    ctx.ledger.took_keys(self.id, epoch, version, &all)?;
                                    follow.following.keys_applied(epoch, version);
                                    Event::KeysApplied(version)
                                }
                                Err(e) => {
                                    self.allow("key changes", &e)?;
                                    Event::Failed(e.into())
                                }
                            }
                        }
                    }
                }
                _ => Event::Failed(unreachable("the key stream ended")),
            }
        } else {
            ctx.net.close(conn, End::Client);
            return Ok(());
        };
        let Phase::Following(follow) = &mut self.phase else {
            return Ok(());
        };
        let Some(stream) = follow.stream.as_mut() else {
            return Ok(());
        };
        let actions = stream.core.step(now, event);
        self.carry_out(ctx, actions)
    }
}
