//! Tenants' tokens: made, kept, checked, revoked.
//!
//! A token is `id.secret`: 8 and 32 random bytes in hexadecimal. Its record is an entry of the system tenant's
//! keyspace "tokens", so that it is sealed, replicated through the log, and good on the promoted standby:
//!
//! ```text
//! key    id, 8 bytes
//! value  version u8 = 1, tenant u64, created ms u64, salt 16, SHA-256("strongroom/1/token" salt secret) 32
//! ```
//!
//! The secret has 256 random bits, so a fast hash is enough: there is no dictionary to try.
//!
//! Invariants:
//! - A revocation is in force when `revoke` returns, and stays so whatever the outcome of its commit.
//! - A token is good only while its tenant exists. Ids of tenants are never used again.
//! - Records are cached under the reign they were read in. Within a reign only this store writes them.
//! - All refusals look alike, and an unknown id costs the same hash and comparison as a wrong secret.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use strongroom::{Engine, Epoch, Error, ErrorKind, Result, Tenant, TenantId};
use strongroom_client::Kind;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tonic::Status;
use zeroize::Zeroizing;

use crate::auth::unauthenticated;
use crate::blocking;
use crate::status;

const KEYSPACE: &str = "tokens";
const DOMAIN: &[u8] = b"strongroom/1/token";
const RECORD_VERSION: u8 = 1;
const RECORD_BYTES: usize = 1 + 8 + 8 + 16 + 32;
/// Records kept in memory, about 150 bytes each.
const CACHED_MAX: usize = 100_000;
/// Look-ups in the engine at once: callers without a token must not crowd out those with one.
const LOOKUPS_MAX: usize = 8;

/// Names a token; not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TokenId([u8; 8]);

impl TokenId {
    /// From 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<TokenId> {
        let mut id = [0; 8];
        hex::decode_to_slice(text, &mut id).ok()?;
        Some(TokenId(id))
    }
}

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A token as a caller shows it.
pub struct Token {
    id: TokenId,
    secret: Zeroizing<[u8; 32]>,
}

impl Token {
    /// From `id.secret`.
    pub fn parse(text: &str) -> Option<Token> {
        let (id, secret) = text.split_once('.')?;
        let id = TokenId::parse(id)?;
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(secret, bytes.as_mut_slice()).ok()?;
        Some(Token { id, secret: bytes })
    }

    fn text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(hex::encode(self.secret.as_slice()));
        Zeroizing::new(format!("{}.{}", self.id, *secret))
    }
}

/// A token as operators see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenInfo {
    /// Its id.
    pub id: TokenId,
    /// Whose it is.
    pub tenant: TenantId,
    /// When it was made, ms since 1970.
    pub created_ms: u64,
}

/// What is kept of a token.
#[derive(Clone, PartialEq, Eq)]
struct Record {
    tenant: TenantId,
    created_ms: u64,
    salt: [u8; 16],
    hash: [u8; 32],
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORD_BYTES);
        bytes.push(RECORD_VERSION);
        bytes.extend_from_slice(&self.tenant.0.to_le_bytes());
        bytes.extend_from_slice(&self.created_ms.to_le_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.hash);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Record> {
        let malformed = || Error::new(ErrorKind::Corruption, "a token's record is malformed");
        let (version, rest) = bytes.split_first().ok_or_else(malformed)?;
        if *version != RECORD_VERSION {
            let text = format!("a token's record has version {version}, this server knows {RECORD_VERSION}");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let (tenant, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        let (created, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        let (salt, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        Ok(Record {
            tenant: TenantId(u64::from_le_bytes(*tenant)),
            created_ms: u64::from_le_bytes(*created),
            salt: *salt,
            hash: rest.try_into().map_err(|_| malformed())?,
        })
    }
}

/// For fuzzing: whether this is a token, or a record of one, which then must read back.
#[cfg(feature = "sim")]
pub(crate) mod parsers {
    use super::{Record, Token, TokenId};

    pub fn token(bytes: &[u8]) -> bool {
        let Some(token) = std::str::from_utf8(bytes).ok().and_then(Token::parse) else {
            return false;
        };
        let text = token.text();
        assert!(
            text.as_bytes().eq_ignore_ascii_case(bytes),
            "a token reads back otherwise"
        );
        assert!(TokenId::parse(&token.id.to_string()) == Some(token.id));
        true
    }

    pub fn record(bytes: &[u8]) -> bool {
        let Ok(record) = Record::decode(bytes) else {
            return false;
        };
        assert!(record.encode() == bytes, "a record reads back as other bytes");
        true
    }

    pub fn record_samples() -> Vec<Vec<u8>> {
        let record = Record {
            tenant: strongroom::TenantId(3),
            created_ms: 1_700_000_000_000,
            salt: [1; 16],
            hash: [2; 32],
        };
        vec![record.encode()]
    }
}

fn hash(salt: &[u8; 16], secret: &[u8; 32]) -> [u8; 32] {
    Sha256::new()
        .chain_update(DOMAIN)
        .chain_update(salt)
        .chain_update(secret)
        .finalize()
        .into()
}

/// A record in memory; long calls hold on to it to see its revocation.
struct Cached {
    record: Record,
    revoked: AtomicBool,
}

/// Sees a token's revocation.
#[derive(Clone)]
pub struct Watch(Arc<Cached>);

impl Watch {
    /// Whether the token was revoked since.
    pub fn is_revoked(&self) -> bool {
        self.0.revoked.load(Ordering::Acquire)
    }
}

#[derive(Default)]
struct Cache {
    epoch: Epoch,
    /// Counts changes: a record read before one is not cached after it.
    changes: u64,
    records: HashMap<TokenId, Arc<Cached>>,
    /// Revoked, with a commit that is under way or of unknown outcome.
    denied: HashSet<TokenId>,
}

/// The tokens of all tenants. One for the life of the process; the engine comes with each call.
pub struct TokenStore {
    cache: Mutex<Cache>,
    lookups: Arc<Semaphore>,
}

impl Default for TokenStore {
    fn default() -> TokenStore {
        TokenStore {
            cache: Mutex::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }
}

impl TokenStore {
    /// The token's tenant, if it is good in this reign of `engine`.
    pub async fn verify(
        self: &Arc<Self>,
        epoch: Epoch,
        engine: &Engine,
        token: &Token,
    ) -> std::result::Result<(Tenant, Watch), Status> {
        let cached = match self.cached(epoch, token.id) {
            Some(cached) => Some(cached),
            None => {
                let (store, engine, id) = (self.clone(), engine.clone(), token.id);
                let found = blocking::run(&self.lookups, Kind::Internal, move || {
                    store.look_up(epoch, &engine, id)
                })
                .await?;
                found.map_err(|e| status::for_tenant(&e))?
            }
        };
        let secret_is_right = match &cached {
            Some(cached) => bool::from(hash(&cached.record.salt, &token.secret).ct_eq(&cached.record.hash)),
            None => {
                let _ = hash(&[0; 16], &token.secret).ct_eq(&[0; 32]);
                false
            }
        };
        match cached {
            Some(cached) if secret_is_right && !cached.revoked.load(Ordering::Acquire) => {
                match engine.tenant_by_id(cached.record.tenant) {
                    Ok(tenant) => Ok((tenant, Watch(cached))),
                    Err(e) if e.kind() == ErrorKind::NotFound => Err(unauthenticated()),
                    Err(e) => Err(status::for_tenant(&e)),
                }
            }
            _ => Err(unauthenticated()),
        }
    }

    fn cached(&self, epoch: Epoch, id: TokenId) -> Option<Arc<Cached>> {
        let cache = self.cache.lock();
        (cache.epoch == epoch)
            .then(|| cache.records.get(&id).cloned())
            .flatten()
    }

    /// Reads a record and caches it. Blocks.
    fn look_up(&self, epoch: Epoch, engine: &Engine, id: TokenId) -> Result<Option<Arc<Cached>>> {
        let changes = self.enter(epoch).changes;
        let Some(keyspace) = existing(engine)? else {
            return Ok(None);
        };
        let Some(value) = keyspace.get(id.0)? else {
            return Ok(None);
        };
        let cached = Arc::new(Cached {
            record: Record::decode(&value)?,
            revoked: AtomicBool::new(false),
        });
        let mut cache = self.enter(epoch);
        if cache.denied.contains(&id) {
            return Ok(None);
        }
        if cache.changes != changes {
            // Something was revoked meanwhile, perhaps this one, with a commit this read did not see: again.
            drop(cache);
            return match keyspace.get(id.0)? {
                Some(_) => Ok(Some(cached)),
                None => Ok(None),
            };
        }
        if cache.records.len() >= CACHED_MAX {
            cache.records.clear();
        }
        Ok(Some(cache.records.entry(id).or_insert(cached).clone()))
    }

    /// The cache of this reign; of an earlier one nothing is kept, nor is anything of a later one disturbed.
    fn enter(&self, epoch: Epoch) -> parking_lot::MutexGuard<'_, Cache> {
        let mut cache = self.cache.lock();
        if cache.epoch < epoch {
            let changes = cache.changes + 1;
            *cache = Cache {
                epoch,
                changes,
                ..Cache::default()
            };
        }
        cache
    }

    /// Makes a token for a tenant: its text, the only copy, and its id. As durable as the engine's default.
    /// Blocks. Errors: those of a write.
    pub fn create(
        &self,
        engine: &Engine,
        tenant: TenantId,
        now_ms: u64,
    ) -> Result<(Zeroizing<String>, TokenId)> {
        let mut token = Token {
            id: TokenId([0; 8]),
            secret: Zeroizing::new([0; 32]),
        };
        let mut salt = [0; 16];
        random(&mut token.id.0)?;
        random(token.secret.as_mut_slice())?;
        random(&mut salt)?;
        let record = Record {
            tenant,
            created_ms: now_ms,
            salt,
            hash: hash(&salt, &token.secret),
        };
        engine
            .system()
            .keyspace(KEYSPACE)?
            .put(token.id.0, record.encode())?;
        Ok((token.text(), token.id))
    }

    /// Revokes a token: no call is let in with it after this returns, and those that last end. Blocks. Errors:
    /// `NotFound`, and those of a write; after `Unknown` it is revoked in this reign, repeat it to make sure.
    pub fn revoke(&self, epoch: Epoch, engine: &Engine, id: TokenId) -> Result<()> {
        let not_found = || Error::new(ErrorKind::NotFound, "there is no token of that id");
        let keyspace = existing(engine)?.ok_or_else(not_found)?;
        if keyspace.get(id.0)?.is_none() {
            return Err(not_found());
        }
        self.deny(epoch, &[id]);
        let outcome = keyspace.delete(id.0).map(drop);
        if outcome
            .as_ref()
            .err()
            .is_none_or(|e| e.kind() != ErrorKind::Unknown)
        {
            // Gone from the engine, or certainly still there.
            self.enter(epoch).denied.remove(&id);
        }
        outcome
    }

    /// Removes the records of a deleted tenant's tokens. They are no good already. Blocks.
    pub fn forget_tenant(&self, epoch: Epoch, engine: &Engine, tenant: TenantId) -> Result<()> {
        let ids: Vec<TokenId> = self
            .list(engine)?
            .into_iter()
            .filter(|t| t.tenant == tenant)
            .map(|t| t.id)
            .collect();
        let Some(keyspace) = existing(engine)?.filter(|_| !ids.is_empty()) else {
            return Ok(());
        };
        self.deny(epoch, &ids);
        let mut batch = engine.system().batch();
        for id in &ids {
            batch = batch.delete(&keyspace, id.0);
        }
        batch.commit().map(drop)
    }

    fn deny(&self, epoch: Epoch, ids: &[TokenId]) {
        let mut cache = self.enter(epoch);
        cache.changes += 1;
        for id in ids {
            cache.denied.insert(*id);
            if let Some(cached) = cache.records.remove(id) {
                cached.revoked.store(true, Ordering::Release);
            }
        }
    }

    /// All tokens, in order of id. Blocks.
    pub fn list(&self, engine: &Engine) -> Result<Vec<TokenInfo>> {
        let Some(keyspace) = existing(engine)? else {
            return Ok(Vec::new());
        };
        let mut tokens = Vec::new();
        for entry in keyspace.iter() {
            let (key, value) = entry?;
            let id = key.as_ref().try_into().map(TokenId);
            let id = id.map_err(|_| Error::new(ErrorKind::Corruption, "a token's id is malformed"))?;
            let record = Record::decode(&value)?;
            tokens.push(TokenInfo {
                id,
                tenant: record.tenant,
                created_ms: record.created_ms,
            });
        }
        Ok(tokens)
    }
}

/// The keyspace, if any token was ever made.
fn existing(engine: &Engine) -> Result<Option<strongroom::Keyspace>> {
    match engine.system().open_keyspace(KEYSPACE) {
        Ok(keyspace) => Ok(Some(keyspace)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|e| Error::new(ErrorKind::Io, format!("the system gave no randomness: {e}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use strongroom::keys::KeyFile;
    use strongroom::{Durability, Options, TenantOptions};
    use tonic::Code;

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Place {
            let dir = tempfile::tempdir().unwrap();
            KeyFile::create(dir.path().join("key")).unwrap();
            Place(dir)
        }

        fn open(&self, durability: Durability) -> (Engine, Epoch) {
            let mut options = Options::default();
            options.durability = durability;
            options.replicated_timeout = Duration::from_millis(20);
            let keys = KeyFile::open(self.0.path().join("key")).unwrap();
            let engine = Engine::builder(self.0.path().join("db"))
                .keys(keys)
                .options(options)
                .open()
                .unwrap();
            let epoch = engine.status().epoch;
            (engine, epoch)
        }
    }

    async fn good(store: &Arc<TokenStore>, epoch: Epoch, engine: &Engine, text: &str) -> bool {
        match store.verify(epoch, engine, &Token::parse(text).unwrap()).await {
            Ok(_) => true,
            Err(status) => {
                assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
                false
            }
        }
    }

    #[tokio::test]
    async fn token_made_then_good_for_its_tenant_until_revoked() {
        let place = Place::new();
        let (engine, epoch) = place.open(Durability::Local);
        let tenant = engine.create_tenant("a", TenantOptions::default()).unwrap();
        let store = Arc::new(TokenStore::default());
        let (text, id) = store.create(&engine, tenant.id(), 7).unwrap();
        for _ in 0..2 {
            let (found, watch) = store
                .verify(epoch, &engine, &Token::parse(&text).unwrap())
                .await
                .unwrap();
            assert_eq!(found.id(), tenant.id());
            assert!(!watch.is_revoked());
        }
        let (_, watch) = store
            .verify(epoch, &engine, &Token::parse(&text).unwrap())
            .await
            .unwrap();
        assert_eq!(
            store.list(&engine).unwrap(),
            [TokenInfo {
                id,
                tenant: tenant.id(),
                created_ms: 7
            }]
        );
        store.revoke(epoch, &engine, id).unwrap();
        assert!(watch.is_revoked());
        assert!(!good(&store, epoch, &engine, &text).await);
        assert_eq!(
            store.revoke(epoch, &engine, id).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[tokio::test]
    async fn outcome_of_a_revocation_unknown_then_the_token_is_refused_all_the_same() {
        let place = Place::new();
        let (engine, _) = place.open(Durability::Local);
        let tenant = engine.create_tenant("a", TenantOptions::default()).unwrap().id();
        let (text, id) = TokenStore::default().create(&engine, tenant, 0).unwrap();
        engine.close().unwrap();
        // No standby will ever confirm.
        let (engine, epoch) = place.open(Durability::Replicated);
        for cached in [false, true] {
            let store = Arc::new(TokenStore::default());
            if cached {
                assert!(good(&store, epoch, &engine, &text).await);
            }
            assert_eq!(
                store.revoke(epoch, &engine, id).unwrap_err().kind(),
                ErrorKind::Unknown
            );
            assert!(!good(&store, epoch, &engine, &text).await);
        }
    }

    #[tokio::test]
    async fn reign_ended_then_nothing_cached_in_it_counts() {
        let place = Place::new();
        let (engine, first) = place.open(Durability::Local);
        let tenant = engine.create_tenant("a", TenantOptions::default()).unwrap().id();
        let store = Arc::new(TokenStore::default());
        let (text, id) = store.create(&engine, tenant, 0).unwrap();
        assert!(good(&store, first, &engine, &text).await);
        // Another node reigned meanwhile, and revoked it there.
        TokenStore::default().revoke(first, &engine, id).unwrap();
        engine.close().unwrap();
        let (engine, second) = place.open(Durability::Local);
        assert!(first < second);
        assert!(!good(&store, second, &engine, &text).await);
    }

    #[tokio::test]
    async fn tenant_deleted_then_its_tokens_are_no_good_and_swept_up() {
        let place = Place::new();
        let (engine, epoch) = place.open(Durability::Local);
        let tenant = engine.create_tenant("a", TenantOptions::default()).unwrap().id();
        let other = engine.create_tenant("b", TenantOptions::default()).unwrap().id();
        let store = Arc::new(TokenStore::default());
        let (dead, _) = store.create(&engine, tenant, 0).unwrap();
        let (alive, _) = store.create(&engine, other, 0).unwrap();
        assert!(good(&store, epoch, &engine, &dead).await);
        engine.delete_tenant("a").unwrap();
        assert!(!good(&store, epoch, &engine, &dead).await, "also from the cache");
        store.forget_tenant(epoch, &engine, tenant).unwrap();
        assert!(!good(&store, epoch, &engine, &dead).await);
        assert!(good(&store, epoch, &engine, &alive).await);
        assert_eq!(store.list(&engine).unwrap().len(), 1);
    }

    #[test]
    fn record_of_any_other_shape_then_refused_by_kind() {
        let record = Record {
            tenant: TenantId(5),
            created_ms: 6,
            salt: [7; 16],
            hash: [8; 32],
        };
        let bytes = record.encode();
        assert_eq!(bytes.len(), RECORD_BYTES);
        assert!(Record::decode(&bytes).unwrap() == record);
        for length in 0..bytes.len() {
            assert!(Record::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Record::decode(&[&bytes[..], &[0]].concat()).is_err());
        let newer = [&[2], &bytes[1..]].concat();
        assert_eq!(
            Record::decode(&newer).err().unwrap().kind(),
            ErrorKind::Unsupported
        );
    }
}
