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
//! - A revocation that ends in `Ok` or `Unknown` is in force when `revoke` returns, for good or to the end of the
//!   reign. Whoever was let in before sees it: what a call holds is what a revocation finds (`cache`).
//! - A token is good only while its tenant exists. Ids of tenants are never used again; those of tokens are random.
//! - Records are cached under the reign they were read in. Within a reign only this store writes them. A look-up
//!   that outlives its reign lets nobody in, and leaves nothing in memory.
//! - All refusals look alike, and an unknown id costs the same hash and comparison as a wrong secret.

mod cache;

use std::sync::Arc;

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

use cache::{Cache, Cached, Found};

pub use cache::Watch;

const KEYSPACE: &str = "tokens";
const DOMAIN: &[u8] = b"strongroom/1/token";
const RECORD_VERSION: u8 = 1;
const RECORD_BYTES: usize = 1 + 8 + 8 + 16 + 32;
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
    /// The token's tenant, if it is good in this reign of `engine`. `Fenced` once a later one has begun here.
    pub async fn verify(
        self: &Arc<Self>,
        epoch: Epoch,
        engine: &Engine,
        token: &Token,
    ) -> std::result::Result<(Tenant, Watch), Status> {
        let known = self.cache.lock().cached(epoch, token.id);
        let cached = match known {
            Some(cached) => Some(cached),
            None => {
                let (store, engine, id) = (self.clone(), engine.clone(), token.id);
                let found = blocking::run(&self.lookups, Kind::Internal, move || {
                    store.look_up(epoch, id, || read(&engine, id))
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
            Some(cached) if secret_is_right && !cached.is_revoked() => {
                match engine.tenant_by_id(cached.record.tenant) {
                    Ok(tenant) => Ok((tenant, Watch::new(cached))),
                    Err(e) if e.kind() == ErrorKind::NotFound => Err(unauthenticated()),
                    Err(e) => Err(status::for_tenant(&e)),
                }
            }
            _ => Err(unauthenticated()),
        }
    }

    /// The record that `read` finds in the engine, cached. Blocks as long as `read` does, which is called again as
    /// often as a revocation of this very token crosses it.
    fn look_up(
        &self,
        epoch: Epoch,
        id: TokenId,
        mut read: impl FnMut() -> Result<Option<Record>>,
    ) -> Result<Option<Arc<Cached>>> {
        loop {
            let look_up = self.cache.lock().begin(epoch, id)?;
            let record = read()?;
            let found = self.cache.lock().finish(&look_up, record)?;
            match found {
                Found::Record(cached) => return Ok(Some(cached)),
                Found::Nothing => return Ok(None),
                Found::Again => {}
            }
        }
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
    /// `NotFound`, and those of a write. After `Unknown` it is revoked in this reign, repeat it to make sure; after
    /// any other error calls that last have ended all the same, and the token is as good in this reign as it was.
    pub fn revoke(&self, epoch: Epoch, engine: &Engine, id: TokenId) -> Result<()> {
        let not_found = || Error::new(ErrorKind::NotFound, "there is no token of that id");
        // Also if there is none: then nothing that is in memory of it may stay.
        self.denied_while(epoch, &[id], || {
            let keyspace = existing(engine)?.ok_or_else(not_found)?;
            keyspace.get(id.0)?.ok_or_else(not_found)?;
            keyspace.delete(id.0).map(drop)
        })
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
        self.denied_while(epoch, &ids, || {
            let mut batch = engine.system().batch();
            for id in &ids {
                batch = batch.delete(&keyspace, id.0);
            }
            batch.commit().map(drop)
        })
    }

    /// Denies the tokens, from before `delete` deletes their records until its outcome is settled. One that panics
    /// leaves them denied.
    fn denied_while(&self, epoch: Epoch, ids: &[TokenId], delete: impl FnOnce() -> Result<()>) -> Result<()> {
        let denied_in = self.cache.lock().deny(epoch, ids);
        let outcome = delete();
        self.cache.lock().settle(denied_in, ids, &outcome);
        outcome
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

/// A token's record, if there is such a token.
fn read(engine: &Engine, id: TokenId) -> Result<Option<Record>> {
    let Some(keyspace) = existing(engine)? else {
        return Ok(None);
    };
    let value = keyspace.get(id.0)?;
    value.map(|value| Record::decode(&value)).transpose()
}

fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|e| Error::new(ErrorKind::Io, format!("the system gave no randomness: {e}")))
}

#[cfg(test)]
mod tests;
