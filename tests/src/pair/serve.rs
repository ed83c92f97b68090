//! A node that serves: drives `core::primary` for each standby, as `sender`, `standbys`, `keystream` and
//! `bootstrap` do.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use strongroom::{Engine, Epoch, ErrorKind, WalCursor, WalPin, checkpoint_files};
use strongroom_replication::core::epoch::{Hello, Verdict};
use strongroom_replication::core::message::{FromBase, FromPrimary, Seen};
use strongroom_replication::core::primary::{Action, Event, Limits, PrimarySession, judge, refusal};
use strongroom_replication::core::remove_tree;

use super::machine::Machine;
use super::net::{ConnId, End, Msg};
use super::node::{Check, Checked, Ctx, Node, PATIENCE, name_of, node_of};

const HEARTBEAT: Duration = Duration::from_millis(100);
/// How long WAL is kept for standbys that have yet to come.
const GRACE: Duration = Duration::from_secs(5);
/// Small, so that records are cut, and windows fill.
const CHUNK: usize = 700;
const WINDOW: u64 = 6000;
/// Most bytes of a file in one message.
const BASE_CHUNK: usize = 3000;
const STANDBYS_MAX: usize = 8;

/// Time as primary in one epoch.
pub struct Reign {
    epoch: Epoch,
    database_id: [u8; 16],
    streams: BTreeMap<String, Stream>,
    conns: BTreeMap<ConnId, Served>,
    pins: Vec<(WalPin, Duration)>,
    copy: Option<Copy>,
    copies: u64,
}

/// What a connection is for.
#[derive(Clone)]
enum Served {
    Stream(String),
    Keys(String),
    Copy,
}

/// A standby, connected or remembered.
struct Stream {
    conn: Option<ConnId>,
    keys: Option<ConnId>,
    session: [u8; 16],
    core: PrimarySession,
    cursor: WalCursor,
    pin: WalPin,
    /// Keystore version sent so far; `None`: everything is to be sent first.
    keys_sent: Option<u64>,
    heartbeat_at: Duration,
}

/// A base copy on its way out.
struct Copy {
    conn: ConnId,
    scratch: PathBuf,
    messages: VecDeque<Out>,
    pin: WalPin,
}

enum Out {
    Message(FromBase),
    Piece { path: PathBuf, offset: u64, len: usize },
}

impl Reign {
    /// It begins.
    pub fn new(engine: &Engine, now: Duration) -> Reign {
        let status = engine.status();
        Reign {
            epoch: status.epoch,
            database_id: status.database_id,
            streams: BTreeMap::new(),
            conns: BTreeMap::new(),
            pins: vec![(engine.pin_wal(status.wal_start), now + GRACE)],
            copy: None,
            copies: 0,
        }
    }

    /// Ends every stream.
    pub fn close(&mut self, ctx: &mut Ctx, machine: &Machine) {
        for conn in self.conns.keys() {
            ctx.net.close(*conn, End::Server);
        }
        if let Some(copy) = self.copy.take() {
            let _ = remove_tree(&machine.io(), &copy.scratch);
        }
    }

    fn end(&mut self, ctx: &mut Ctx, name: &str) {
        let Some(stream) = self.streams.get_mut(name) else {
            return;
        };
        for conn in [stream.conn.take(), stream.keys.take()].into_iter().flatten() {
            ctx.net.close(conn, End::Server);
            self.conns.remove(&conn);
        }
    }

    fn step(&mut self, ctx: &mut Ctx, engine: &Engine, name: &str, now: Duration, event: Event) -> Checked {
        let Some(stream) = self.streams.get_mut(name) else {
            return Ok(());
        };
        for action in stream.core.step(now, event) {
            match action {
                Action::Send(message) => {
                    if let Some(conn) = stream.conn {
                        ctx.net.send(conn, End::Client, Msg::Primary(message));
                    }
                }
                Action::Confirm { epoch, lsn } => {
                    engine.confirm_replicated(epoch, lsn);
                    ctx.ledger.confirm(node_of(name), epoch, lsn)?;
                }
                Action::Pin(lsn) => stream.pin.advance(lsn),
                Action::End(reason) => {
                    ctx.note(format!("stream to {name} ends: {reason}"));
                    self.end(ctx, name);
                    return Ok(());
                }
            }
        }
        let p = stream.core.progress();
        if p.applied() <= p.durable() && p.durable() <= p.received() && p.received() <= p.sent() {
            return Ok(());
        }
        Err(format!("positions out of order: {p:?}"))
    }
}

impl Node {
    /// A unit of work for standbys.
    pub(super) fn serve(&mut self, ctx: &mut Ctx, roll: u64) -> Checked {
        let (now, ms) = (self.now(), self.now().as_millis() as u64);
        let (Some(reign), Some(engine)) = (&mut self.reign, &self.engine) else {
            return Ok(());
        };
        reign.pins.retain(|(_, until)| *until > now);
        let names: Vec<String> = reign
            .streams
            .iter()
            .filter(|(_, s)| s.conn.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        let Some(name) = names.get(roll as usize % names.len().max(1)).cloned() else {
            return self.copy_on(ctx);
        };
        reign.step(ctx, engine, &name, now, Event::Tick)?;
        let Some(stream) = reign.streams.get_mut(&name).filter(|s| s.conn.is_some()) else {
            return Ok(());
        };
        if now >= stream.heartbeat_at {
            stream.heartbeat_at = now + HEARTBEAT;
            reign.step(ctx, engine, &name, now, Event::Heartbeat)?;
        }
        let Some(stream) = reign.streams.get_mut(&name) else {
            return Ok(());
        };
        if let Some(keys) = stream.keys {
            let version = engine.keystore_version();
            if stream.keys_sent != Some(version) {
                let from = stream.keys_sent.unwrap_or(0);
                let changes = engine.key_changes(from);
                stream.keys_sent = Some(changes.version);
                let (version, encoded) = (changes.version, changes.encode().to_vec());
                let since = if changes.full { 0 } else { from };
                let all = engine.key_changes(0).encode().to_vec();
                ctx.ledger.told_keys(reign.epoch, version, all);
                reign.step(ctx, engine, &name, now, Event::KeysSent(version))?;
                let keys_message = Msg::Keys {
                    since,
                    version,
                    encoded,
                };
                ctx.net.send(keys, End::Client, keys_message);
            }
        }
        let Some(stream) = reign.streams.get_mut(&name) else {
            return Ok(());
        };
        let room = stream.core.room();
        if room > 0 {
            let first = stream.cursor.position();
            let event = match stream.cursor.read(room, Duration::ZERO) {
                Ok(bytes) if bytes.is_empty() => None,
                Ok(bytes) => Some(Event::Read {
                    first,
                    bytes,
                    keystore: engine.keystore_version(),
                }),
                Err(e) if e.kind() == ErrorKind::Gone => Some(Event::Gone {
                    oldest: engine.status().wal_start,
                }),
                Err(e) if self.faulted => {
                    let _ = e;
                    Some(Event::ReadFailed)
                }
                Err(e) => return Err(format!("reading WAL without a fault: {e}")),
            };
            let end = engine.wal_end().start;
            reign.step(ctx, engine, &name, now, Event::Looked(Seen { end, ms }))?;
            if let Some(event) = event {
                reign.step(ctx, engine, &name, now, event)?;
            }
        }
        self.copy_on(ctx)
    }

    /// A message on a connection that somebody dialled here.
    pub(super) fn served(&mut self, ctx: &mut Ctx, conn: ConnId, msg: Msg) -> Checked {
        let now = self.now();
        if let Msg::Hello(hello) = msg {
            return self.hello(ctx, conn, &hello);
        }
        let (Some(reign), Some(engine)) = (&mut self.reign, &self.engine) else {
            ctx.net.close(conn, End::Server);
            return Ok(());
        };
        match (reign.conns.get(&conn).cloned(), msg) {
            (Some(Served::Stream(name)), Msg::Ack(ack)) => {
                reign.step(ctx, engine, &name, now, Event::Ack(ack))
            }
            (Some(Served::Keys(name)), Msg::KeysAck(version)) => {
                reign.step(ctx, engine, &name, now, Event::KeysAcked(version))
            }
            (Some(Served::Stream(name) | Served::Keys(name)), _) => {
                reign.end(ctx, &name);
                Ok(())
            }
            (Some(Served::Copy), _) => {
                reign.conns.remove(&conn);
                if let Some(copy) = reign.copy.take() {
                    let _ = remove_tree(&self.machine.io(), &copy.scratch);
                }
                ctx.net.close(conn, End::Server);
                Ok(())
            }
            (
                None,
                Msg::KeysHello {
                    database_id,
                    session,
                    node,
                    since,
                    epoch,
                },
            ) => {
                if database_id != reign.database_id || epoch != reign.epoch {
                    ctx.net.close(conn, End::Server);
                    return Ok(());
                }
                let Some(session) = session else {
                    // A base copy's last step.
                    let changes = engine.key_changes(0);
                    let keys = Msg::Keys {
                        since: 0,
                        version: changes.version,
                        encoded: changes.encode().to_vec(),
                    };
                    ctx.net.send(conn, End::Client, keys);
                    ctx.net.close(conn, End::Server);
                    return Ok(());
                };
                let known = reign.streams.get_mut(&node);
                let Some(stream) = known.filter(|s| s.conn.is_some() && s.session == session) else {
                    ctx.net.close(conn, End::Server);
                    return Ok(());
                };
                stream.keys = Some(conn);
                stream.keys_sent = (since > 0).then_some(since);
                reign.conns.insert(conn, Served::Keys(node.clone()));
                let current = engine.keystore_version();
                reign.step(ctx, engine, &node, now, Event::KeysBegin { since, current })
            }
            (None, Msg::BaseRequest { database_id }) => {
                let foreign = database_id.is_some_and(|id| id != reign.database_id);
                if foreign || reign.copy.is_some() {
                    ctx.net.close(conn, End::Server);
                    return Ok(());
                }
                self.copy_out(ctx, conn)
            }
            (None, _) => {
                ctx.net.close(conn, End::Server);
                Ok(())
            }
        }
    }

    fn hello(&mut self, ctx: &mut Ctx, conn: ConnId, hello: &Hello) -> Checked {
        let now = self.now();
        let refuse = |ctx: &mut Ctx, message| {
            ctx.net.send(conn, End::Client, Msg::Primary(message));
            ctx.net.close(conn, End::Server);
        };
        let (Some(reign), Some(engine)) = (&mut self.reign, self.engine.clone()) else {
            let epoch = self.who().highest_epoch;
            refuse(ctx, FromPrimary::NotPrimary { epoch });
            return Ok(());
        };
        // A second Hello on one connection is no Hello.
        if reign.conns.contains_key(&conn) {
            ctx.net.close(conn, End::Server);
            return Ok(());
        }
        let verdict = match judge(&engine, hello) {
            Ok(verdict) => verdict,
            Err(e) => {
                ctx.net.close(conn, End::Server);
                return self.allow("judging a Hello", &e);
            }
        };
        let epoch = reign.epoch;
        match verdict {
            Verdict::Resume(start) => {
                let primary = self.id;
                let standby = node_of(&hello.node);
                // A Hello that was long on its way is answered too; nobody listens to that.
                if ctx.net.listens(conn, End::Client) {
                    ctx.checks.push(Check::Resumed {
                        primary,
                        standby,
                        upto: start.0,
                    });
                }
                let cursor = match engine.wal_cursor(start) {
                    Ok(cursor) => cursor,
                    Err(e) if e.kind() == ErrorKind::Gone => {
                        let oldest = engine.status().wal_start;
                        refuse(ctx, FromPrimary::TooFarBehind { oldest });
                        return Ok(());
                    }
                    Err(e) => {
                        ctx.net.close(conn, End::Server);
                        return self.allow("a cursor", &e);
                    }
                };
                reign.end(ctx, &hello.node);
                if !reign.streams.contains_key(&hello.node) && reign.streams.len() >= STANDBYS_MAX {
                    ctx.net.close(conn, End::Server);
                    return Ok(());
                }
                let limits = Limits {
                    window: WINDOW,
                    chunk: CHUNK,
                    patience: PATIENCE,
                };
                let stream = Stream {
                    conn: Some(conn),
                    keys: None,
                    session: hello.session,
                    core: PrimarySession::new(epoch, start, limits, now),
                    cursor,
                    pin: engine.pin_wal(start),
                    keys_sent: None,
                    heartbeat_at: now,
                };
                reign.streams.insert(hello.node.clone(), stream);
                reign.conns.insert(conn, Served::Stream(hello.node.clone()));
                let ok = FromPrimary::Ok {
                    epoch,
                    start,
                    end: engine.status().durable,
                    window_bytes: WINDOW,
                    heartbeat_ms: HEARTBEAT.as_millis() as u32,
                    node: name_of(self.id),
                };
                ctx.net.send(conn, End::Client, Msg::Primary(ok));
            }
            Verdict::Younger(by) => {
                if !self.fence(ctx, by)? {
                    ctx.net.close(conn, End::Server);
                    return Ok(());
                }
                refuse(ctx, refusal(verdict, epoch));
            }
            _ => refuse(ctx, refusal(verdict, epoch)),
        }
        if hello.highest > epoch && engine.status().fenced_by.is_none() {
            return Err(format!(
                "{} heard of {} in a Hello and goes on in {epoch}",
                name_of(self.id),
                hello.highest
            ));
        }
        Ok(())
    }

    // ---- base copies ----

    fn copy_out(&mut self, ctx: &mut Ctx, conn: ConnId) -> Checked {
        let (Some(reign), Some(engine), Some(dirs)) = (&mut self.reign, &self.engine, &self.dirs) else {
            return Ok(());
        };
        reign.copies += 1;
        let io = self.machine.io();
        let made = dirs.scratch(reign.copies).and_then(|scratch| {
            let pin = engine.pin_wal(engine.status().durable);
            let checkpoint = engine.checkpoint(&scratch)?;
            let files = checkpoint_files(&scratch, &io)?;
            Ok((scratch, pin, checkpoint, files))
        });
        let (scratch, pin, checkpoint, files) = match made {
            Ok(made) => made,
            Err(e) => {
                ctx.net.close(conn, End::Server);
                return self.allow("a checkpoint", &e);
            }
        };
        let (count, total) = (files.len() as u64, files.iter().map(|(_, len)| len).sum());
        let mut messages = VecDeque::from([Out::Message(FromBase::Begin {
            database_id: reign.database_id,
            epoch: reign.epoch,
            lsn: checkpoint.position.lsn,
            files: count,
            bytes: total,
        })]);
        for (name, len) in files {
            let path = scratch.join(&name);
            messages.push_back(Out::Message(FromBase::File { name, bytes: len }));
            let mut offset = 0;
            while offset < len {
                let take = (len - offset).min(BASE_CHUNK as u64) as usize;
                messages.push_back(Out::Piece {
                    path: path.clone(),
                    offset,
                    len: take,
                });
                offset += take as u64;
            }
        }
        messages.push_back(Out::Message(FromBase::End {
            files: count,
            bytes: total,
        }));
        ctx.note(format!(
            "{} begins a base copy of {count} files",
            name_of(self.id)
        ));
        reign.conns.insert(conn, Served::Copy);
        reign.copy = Some(Copy {
            conn,
            scratch,
            messages,
            pin,
        });
        Ok(())
    }

    fn copy_on(&mut self, ctx: &mut Ctx) -> Checked {
        let now = self.now();
        let Some(reign) = &mut self.reign else {
            return Ok(());
        };
        let Some(copy) = &mut reign.copy else {
            return Ok(());
        };
        for _ in 0..2 {
            let Some(out) = copy.messages.pop_front() else {
                break;
            };
            let message = match out {
                Out::Message(message) => message,
                Out::Piece { path, offset, len } => match piece(&self.machine, &path, offset, len) {
                    Ok(bytes) => FromBase::Chunk { offset, bytes },
                    Err(e) => {
                        let (conn, scratch) = (copy.conn, copy.scratch.clone());
                        reign.copy = None;
                        reign.conns.remove(&conn);
                        ctx.net.close(conn, End::Server);
                        let _ = remove_tree(&self.machine.io(), &scratch);
                        return self.allow("reading a checkpoint", &e);
                    }
                },
            };
            ctx.net.send(copy.conn, End::Client, Msg::Base(message));
        }
        if copy.messages.is_empty()
            && let Some(copy) = reign.copy.take()
        {
            reign.conns.remove(&copy.conn);
            ctx.net.close(copy.conn, End::Server);
            reign.pins.push((copy.pin, now + GRACE));
            let _ = remove_tree(&self.machine.io(), &copy.scratch);
        }
        Ok(())
    }
}

fn piece(machine: &Machine, path: &Path, offset: u64, len: usize) -> std::io::Result<Bytes> {
    let file = machine.io().vfs.open(path)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.into())
}
