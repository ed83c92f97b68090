//! Connections between simulated nodes.
//!
//! A connection carries messages both ways, in order within each direction; it breaks as a whole, and an
//! end may not notice (half open). A cut link holds messages of one direction back until it heals. In a
//! hostile network messages inside a connection are also repeated and exchanged, as no TCP would: the
//! protocol must refuse what it cannot use.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use strongroom::Epoch;
use strongroom_replication::PeerStatus;
use strongroom_replication::core::epoch::Hello;
use strongroom_replication::core::message::{FenceOutcome, FromBase, FromPrimary};
use strongroom_replication::core::progress::Ack;

/// A node by number.
pub type NodeId = usize;
/// A connection by number.
pub type ConnId = u64;

/// What is said. What the wire encodes is tested elsewhere; here messages are values.
#[derive(Clone, Debug)]
pub enum Msg {
    /// Standby, first on a stream.
    Hello(Hello),
    /// Standby, on a stream.
    Ack(Ack),
    /// Primary, on a stream.
    Primary(FromPrimary),
    /// Standby, first on a key stream; without a session: everything, once.
    KeysHello {
        database_id: [u8; 16],
        session: Option<[u8; 16]>,
        node: String,
        since: u64,
        epoch: Epoch,
    },
    /// Standby, on a key stream.
    KeysAck(u64),
    /// Primary, on a key stream: an encoded change from `since` (0: everything) to `version`.
    Keys {
        since: u64,
        version: u64,
        encoded: Vec<u8>,
    },
    /// Standby: begins a base copy.
    BaseRequest { database_id: Option<[u8; 16]> },
    /// Primary: a base copy's messages.
    Base(FromBase),
    /// Who are you?
    Ask,
    /// The answer.
    Who(PeerStatus),
    /// An epoch exists.
    Tell { database_id: [u8; 16], epoch: Epoch },
    /// The answer.
    Told { outcome: FenceOutcome, highest: Epoch },
    /// The other end closed.
    Closed,
}

impl Msg {
    /// For the trace: what it is, and numbers that do not depend on random bytes.
    pub fn word(&self) -> String {
        match self {
            Msg::Hello(h) => format!("hello {} {} {}", h.highest, h.durable.epoch, h.durable.start),
            Msg::Ack(a) => format!("ack {} {} {} {}", a.epoch, a.received, a.durable, a.applied),
            Msg::Primary(p) => match p {
                FromPrimary::Ok { epoch, start, .. } => format!("ok {epoch} {start}"),
                FromPrimary::Wal { first, bytes, .. } => format!("wal {first}+{}", bytes.len()),
                FromPrimary::Heartbeat { .. } => "heartbeat".into(),
                FromPrimary::Diverged { fork, .. } => format!("diverged {fork}"),
                FromPrimary::TooFarBehind { oldest } => format!("too far behind {oldest}"),
                FromPrimary::NotPrimary { epoch } => format!("not primary {epoch}"),
                FromPrimary::Younger { epoch } => format!("younger {epoch}"),
                FromPrimary::WrongDatabase => "wrong database".into(),
            },
            Msg::KeysHello { since, .. } => format!("keys hello {since}"),
            Msg::KeysAck(version) => format!("keys ack {version}"),
            Msg::Keys { version, .. } => format!("keys {version}"),
            Msg::BaseRequest { .. } => "base request".into(),
            Msg::Base(base) => match base {
                FromBase::Begin { lsn, files, .. } => format!("base begin {lsn} {files}"),
                FromBase::File { bytes, .. } => format!("base file {bytes}"),
                FromBase::Chunk { offset, bytes } => format!("base chunk {offset}+{}", bytes.len()),
                FromBase::End { .. } => "base end".into(),
            },
            Msg::Ask => "ask".into(),
            Msg::Who(who) => format!("who {:?} {} {}", who.role, who.highest_epoch, who.durable),
            Msg::Tell { epoch, .. } => format!("tell {epoch}"),
            Msg::Told { outcome, highest } => format!("told {outcome:?} {highest}"),
            Msg::Closed => "closed".into(),
        }
    }
}

/// Where a message comes out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    /// At the one who dialled.
    Client,
    /// At the one who was dialled.
    Server,
}

#[derive(Clone, Debug)]
struct Conn {
    client: NodeId,
    server: NodeId,
    to_server: VecDeque<Msg>,
    to_client: VecDeque<Msg>,
    client_open: bool,
    server_open: bool,
    /// Nothing gets through any more, whether the ends know or not.
    broken: bool,
}

impl Conn {
    fn queue(&mut self, end: End) -> &mut VecDeque<Msg> {
        match end {
            End::Client => &mut self.to_client,
            End::Server => &mut self.to_server,
        }
    }

    fn open(&self, end: End) -> bool {
        match end {
            End::Client => self.client_open,
            End::Server => self.server_open,
        }
    }
}

/// All connections.
#[derive(Clone, Default, Debug)]
pub struct Net {
    conns: BTreeMap<ConnId, Conn>,
    cut: BTreeSet<(NodeId, NodeId)>,
    next: ConnId,
    /// Random numbers that identify sessions; never drawn from the engine's source.
    sessions: u64,
}

impl Net {
    /// Opens a connection and says the first thing.
    pub fn dial(&mut self, client: NodeId, server: NodeId, first: Msg) -> ConnId {
        self.next += 1;
        let conn = Conn {
            client,
            server,
            to_server: VecDeque::from([first]),
            to_client: VecDeque::new(),
            client_open: true,
            server_open: true,
            broken: false,
        };
        self.conns.insert(self.next, conn);
        self.next
    }

    /// A fresh session id.
    pub fn session(&mut self) -> [u8; 16] {
        self.sessions += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.sessions.to_le_bytes());
        id
    }

    /// Whether the one at `end` still listens.
    pub fn listens(&self, id: ConnId, end: End) -> bool {
        self.conns.get(&id).is_some_and(|conn| conn.open(end))
    }

    /// Says something, to come out at `end`; lost if the connection is gone.
    pub fn send(&mut self, id: ConnId, end: End, msg: Msg) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.open(end)
            && !conn.broken
        {
            conn.queue(end).push_back(msg);
        }
    }

    /// The one at `end` closes; the other hears of it behind what was sent before.
    pub fn close(&mut self, id: ConnId, end: End) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let (own, other) = match end {
            End::Client => (&mut conn.client_open, End::Server),
            End::Server => (&mut conn.server_open, End::Client),
        };
        if !std::mem::replace(own, false) {
            return;
        }
        conn.queue(end).clear();
        if conn.open(other) {
            if !conn.broken {
                conn.queue(other).push_back(Msg::Closed);
            }
        } else {
            self.conns.remove(&id);
        }
    }

    /// Breaks a connection, and with it all others that the same node dialled to the same one: a stream and its
    /// key stream share one. What is on its way is lost. Ends in `hear` hear of it, the others do not.
    pub fn break_off(&mut self, id: ConnId, hear: &[End]) {
        let Some((client, server)) = self.conns.get(&id).map(|c| (c.client, c.server)) else {
            return;
        };
        let same = |conn: &&mut Conn| (conn.client, conn.server) == (client, server);
        for conn in self.conns.values_mut().filter(same) {
            conn.broken = true;
            conn.to_client.clear();
            conn.to_server.clear();
            for end in [End::Client, End::Server] {
                if hear.contains(&end) && conn.open(end) {
                    conn.queue(end).push_back(Msg::Closed);
                }
            }
        }
    }

    /// A node died: its ends are gone. `hear`: whether the others hear of it.
    pub fn died(&mut self, node: NodeId, hear: bool) {
        self.conns.retain(|_, conn| {
            for (of, end, other) in [
                (conn.client, End::Client, End::Server),
                (conn.server, End::Server, End::Client),
            ] {
                if of == node {
                    match end {
                        End::Client => conn.client_open = false,
                        End::Server => conn.server_open = false,
                    }
                    conn.queue(end).clear();
                    if hear && conn.open(other) {
                        conn.queue(other).push_back(Msg::Closed);
                    }
                }
            }
            conn.client_open || conn.server_open
        });
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Whether any direction is cut.
    pub fn any_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Heals everything.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Connections.
    pub fn ids(&self) -> Vec<ConnId> {
        self.conns.keys().copied().collect()
    }

    /// Places where a message can come out now, with the node there.
    pub fn deliverable(&self) -> Vec<(ConnId, End, NodeId)> {
        let mut found = Vec::new();
        for (id, conn) in &self.conns {
            let (client, server) = (conn.client, conn.server);
            if !conn.to_server.is_empty() && !self.cut.contains(&(client, server)) {
                found.push((*id, End::Server, server));
            }
            if !conn.to_client.is_empty() && !self.cut.contains(&(server, client)) {
                found.push((*id, End::Client, client));
            }
        }
        found
    }

    /// The next message there, if that end still listens.
    pub fn take(&mut self, id: ConnId, end: End) -> Option<Msg> {
        let conn = self.conns.get_mut(&id)?;
        let msg = conn.queue(end).pop_front()?;
        conn.open(end).then_some(msg)
    }

    /// Hostile: the next message there will come twice.
    pub fn repeat(&mut self, id: ConnId, end: End) {
        if let Some(conn) = self.conns.get_mut(&id)
            && let Some(first) = conn.queue(end).front().cloned()
        {
            conn.queue(end).push_front(first);
        }
    }

    /// Hostile: the next two messages there change places.
    pub fn exchange(&mut self, id: ConnId, end: End) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.queue(end).len() >= 2
        {
            conn.queue(end).swap(0, 1);
        }
    }

    /// What is on its way, for a hash of the state.
    pub fn words(&self) -> Vec<String> {
        let words = |queue: &VecDeque<Msg>| queue.iter().map(Msg::word).collect::<Vec<_>>().join(",");
        self.conns
            .values()
            .map(|conn| {
                format!(
                    "{}>{} {} {} [{}] [{}]",
                    conn.client,
                    conn.server,
                    conn.client_open,
                    conn.server_open,
                    words(&conn.to_server),
                    words(&conn.to_client)
                )
            })
            .collect()
    }
}
