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
        // A repeat that certainly does nothing does not undo it.
        let full = || Err(Error::new(ErrorKind::NoSpace, "disk full"));
        store.denied_while(epoch, &[id], full).unwrap_err();
        assert!(!good(&store, epoch, &engine, &text).await);
    }
}

#[tokio::test]
async fn revocation_returns_between_reading_and_caching_then_the_token_stays_revoked() {
    let place = Place::new();
    let (engine, epoch) = place.open(Durability::Local);
    let tenant = engine.create_tenant("a", TenantOptions::default()).unwrap().id();
    let store = Arc::new(TokenStore::default());
    let (text, id) = store.create(&engine, tenant, 0).unwrap();
    let mut seen = None;
    let revoked = store.denied_while(epoch, &[id], || {
        let look_up = store.cache.lock().begin(epoch, id).unwrap();
        seen = Some((look_up, read(&engine, id).unwrap()));
        existing(&engine).unwrap().unwrap().delete(id.0).map(drop)
    });
    revoked.unwrap();
    let (look_up, record) = seen.unwrap();
    assert!(record.is_some(), "read before it was deleted");
    let found = store.cache.lock().finish(&look_up, record).unwrap();
    assert!(matches!(found, Found::Again));
    assert!(!good(&store, epoch, &engine, &text).await);
}

#[tokio::test]
async fn record_in_memory_outlives_the_one_in_the_engine_then_a_revocation_clears_it() {
    let place = Place::new();
    let (engine, epoch) = place.open(Durability::Local);
    let tenant = engine.create_tenant("a", TenantOptions::default()).unwrap().id();
    let store = Arc::new(TokenStore::default());
    let (text, id) = store.create(&engine, tenant, 0).unwrap();
    let token = Token::parse(&text).unwrap();
    let (_, watch) = store.verify(epoch, &engine, &token).await.unwrap();
    existing(&engine).unwrap().unwrap().delete(id.0).unwrap();
    assert!(good(&store, epoch, &engine, &text).await);
    let repeated = store.revoke(epoch, &engine, id).unwrap_err();
    assert_eq!(repeated.kind(), ErrorKind::NotFound);
    assert!(watch.is_revoked());
    assert!(!good(&store, epoch, &engine, &text).await);
}

#[test]
fn revocations_cross_a_look_up_and_fail_then_the_call_let_in_sees_the_one_that_does_not() {
    let place = Place::new();
    let (engine, epoch) = place.open(Durability::Local);
    let tenant = engine.create_tenant("a", TenantOptions::default()).unwrap().id();
    let store = TokenStore::default();
    let (_, id) = store.create(&engine, tenant, 0).unwrap();
    let mut reads = 0;
    let found = store.look_up(epoch, id, || {
        let record = read(&engine, id);
        reads += 1;
        if reads < 3 {
            let full = || Err(Error::new(ErrorKind::NoSpace, "disk full"));
            store.denied_while(epoch, &[id], full).unwrap_err();
        }
        record
    });
    let watch = Watch::new(found.unwrap().expect("the token is still good"));
    assert!(reads == 3 && !watch.is_revoked());
    store.revoke(epoch, &engine, id).unwrap();
    assert!(watch.is_revoked());
}

#[tokio::test]
async fn reign_over_when_a_token_is_looked_up_then_fenced_and_the_next_reign_reads_for_itself() {
    let place = Place::new();
    let (engine, first) = place.open(Durability::Local);
    let tenant = engine.create_tenant("a", TenantOptions::default()).unwrap().id();
    let store = Arc::new(TokenStore::default());
    let (text, id) = store.create(&engine, tenant, 0).unwrap();
    let second = first.promoted();
    let crossed = store.look_up(first, id, || {
        // A call of the next reign, in which another node has revoked the token.
        let none = store.look_up(second, id, || Ok(None));
        assert!(none.unwrap().is_none());
        read(&engine, id)
    });
    assert_eq!(crossed.err().unwrap().kind(), ErrorKind::Fenced);
    assert!(store.cache.lock().cached(second, id).is_none());
    let token = Token::parse(&text).unwrap();
    let late = store.verify(first, &engine, &token).await.err().unwrap();
    let late = strongroom_client::ClientError::from_status(&late, true);
    assert!(late.kind() == Kind::Fenced && late.kind().is_elsewhere());
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
