//! Every parser of the server and its command line as a plain function over bytes, for fuzzing (package
//! `strongroom-fuzz`).
//!
//! Requests are bytes as the network delivers them: one byte that names the method, then protobuf, then the
//! service's own checks. Nothing here opens a database.

use std::fmt::Write as _;
use std::io::Cursor;

use prost::Message;
use strongroom::hooks::parsers::Parser;
use strongroom::keys::EscrowRecipient;
use strongroom_client::proto::{admin, kv};

use crate::config::{Config, toml_table};
use crate::kv_service::{bound, check_key};
use crate::kv_write::{check_conditions, check_operations, durability};
use crate::ndjson::{Lines, Object};
use crate::template::Template;
use crate::token_store::{self, TokenId};

/// The parsers of this crate.
pub fn all() -> Vec<Parser> {
    let parser = |name, check: fn(&[u8]) -> bool, samples: fn() -> Vec<Vec<u8>>| Parser {
        name,
        check,
        repair: Parser::no_repair,
        samples,
        memory: Parser::MEMORY,
        memory_per_byte: Parser::MEMORY_PER_BYTE,
    };
    vec![
        Parser {
            // An operation of two bytes on the wire is one of 88 in memory, in a list that doubles.
            memory_per_byte: 256,
            ..parser("rpc_kv_requests", check_kv, kv_samples)
        },
        parser("rpc_admin_requests", check_admin, admin_samples),
        parser("token", token_store::parsers::token, token_samples),
        parser(
            "token_record",
            token_store::parsers::record,
            token_store::parsers::record_samples,
        ),
        Parser {
            // A syntax tree of values with their places.
            memory_per_byte: 2048,
            ..parser("configuration", check_configuration, configuration_samples)
        },
        Parser {
            // A compressed file may have a window of 100 MiB and a line of 72.
            memory: 400 << 20,
            memory_per_byte: 256,
            ..parser("ndjson_load", check_load, load_samples)
        },
        parser("key_template", check_template, template_samples),
    ]
}

/// Decodes a message, and checks that it decodes the same from what it encodes to.
fn message<M: Message + Default + PartialEq>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    assert!(
        M::decode(&*message.encode_to_vec()).is_ok_and(|again| again == message),
        "a request reads back otherwise"
    );
    Some(message)
}

fn check_kv(bytes: &[u8]) -> bool {
    let Some((method, bytes)) = bytes.split_first() else {
        return false;
    };
    let fits = |key: &[u8]| (1..=strongroom::KEY_BYTES_MAX).contains(&key.len());
    match method % 10 {
        0 => message::<kv::HelloRequest>(bytes).is_some(),
        1 => message::<kv::GetRequest>(bytes).is_some_and(|get| {
            let accepted = check_key(&get.key).is_ok();
            assert_eq!(accepted, fits(&get.key), "a key out of range");
            accepted
        }),
        2 => message::<kv::PutRequest>(bytes).is_some_and(|put| {
            let operation = kv::Operation {
                keyspace: put.keyspace,
                key: put.key,
                value: Some(put.value),
                ttl_ms: put.ttl_ms,
                range: None,
            };
            operations(&[operation], put.durability)
        }),
        3 => message::<kv::DeleteRequest>(bytes).is_some_and(|delete| {
            let operation = kv::Operation {
                keyspace: delete.keyspace,
                key: delete.key,
                value: None,
                ttl_ms: None,
                range: None,
            };
            operations(&[operation], delete.durability)
        }),
        4 => message::<kv::BatchRequest>(bytes).is_some_and(|batch| {
            operations(&batch.operations, batch.durability) & check_conditions(&batch.conditions).is_ok()
        }),
        5 => message::<kv::RangeRequest>(bytes).is_some_and(|range| {
            let long = [&range.start, &range.end]
                .into_iter()
                .flatten()
                .any(|bound| bound.key.len() > strongroom::KEY_BYTES_MAX);
            let accepted = bound(range.start).is_ok() & bound(range.end).is_ok();
            assert_eq!(accepted, !long, "a bound out of range");
            accepted
        }),
        6 => message::<kv::OpenSnapshotRequest>(bytes).is_some(),
        7 => message::<kv::GetManyRequest>(bytes).is_some(),
        8 => message::<kv::UsageRequest>(bytes).is_some(),
        _ => message::<kv::ReleaseSnapshotRequest>(bytes).is_some(),
    }
}

fn operations(operations: &[kv::Operation], number: i32) -> bool {
    let known = durability(number).is_ok();
    assert_eq!(
        known,
        (0..=3).contains(&number),
        "a durability that does not exist"
    );
    let accepted = check_operations(operations).is_ok();
    let fits = |operation: &kv::Operation| {
        if let Some(range) = &operation.range {
            let mut ends = range.start.iter().chain(&range.end);
            let alone = operation.key.is_empty() && operation.value.is_none() && operation.ttl_ms.is_none();
            return alone && ends.all(|end| end.key.len() <= strongroom::KEY_BYTES_MAX);
        }
        (1..=strongroom::KEY_BYTES_MAX).contains(&operation.key.len())
            && operation.value.as_ref().map_or(0, |value| value.len()) <= strongroom::VALUE_BYTES_MAX
            && operation
                .ttl_ms
                .is_none_or(|ttl| ttl > 0 && operation.value.is_some())
    };
    assert_eq!(accepted, operations.iter().all(fits), "an operation out of range");
    known && accepted
}

fn check_admin(bytes: &[u8]) -> bool {
    let Some((method, bytes)) = bytes.split_first() else {
        return false;
    };
    match method % 19 {
        0 => message::<admin::StatusRequest>(bytes).is_some(),
        1 => message::<admin::PromoteRequest>(bytes).is_some(),
        2 => message::<admin::FenceRequest>(bytes).is_some(),
        3 => message::<admin::CreateTenantRequest>(bytes).is_some(),
        4 => message::<admin::ListTenantsRequest>(bytes).is_some(),
        5 => message::<admin::DeleteTenantRequest>(bytes).is_some(),
        6 => message::<admin::CreateTokenRequest>(bytes).is_some(),
        7 => message::<admin::RevokeTokenRequest>(bytes).is_some_and(|revoke| {
            let id = TokenId::parse(&revoke.token_id);
            let text = id.map(|id| id.to_string());
            assert!(text.is_none_or(|text| text.eq_ignore_ascii_case(&revoke.token_id)));
            id.is_some()
        }),
        8 => message::<admin::ListTokensRequest>(bytes).is_some(),
        9 => message::<admin::CreateBackupRequest>(bytes)
            .is_some_and(|backup| EscrowRecipient::parse(&backup.escrow_recipient).is_ok()),
        10 => message::<admin::AcceptRestoredRequest>(bytes).is_some(),
        11 => message::<admin::FlushRequest>(bytes).is_some(),
        12 => message::<admin::StatsRequest>(bytes).is_some(),
        13 => message::<admin::SetQuotaRequest>(bytes).is_some(),
        14 => message::<admin::SetRetentionRequest>(bytes).is_some(),
        15 => message::<admin::ShowTenantRequest>(bytes).is_some(),
        16 => message::<admin::CompactRequest>(bytes).is_some(),
        17 => message::<admin::SetOptionsRequest>(bytes).is_some(),
        _ => message::<admin::SetSeparateBytesRequest>(bytes).is_some(),
    }
}

/// A configuration that is accepted is accepted again from its own values, and is the same.
fn check_configuration(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Ok(config) = Config::from_toml(text, "fuzz.toml", None, None, None) else {
        return false;
    };
    let Ok(serde_json::Value::Object(values)) = serde_json::to_value(&config) else {
        panic!("a configuration is a table");
    };
    let mut values: toml_table::Table = values;
    without_nulls(&mut values);
    match Config::from_toml("", "again.toml", None, None, Some(&values)) {
        Ok(again) => assert!(again == config, "a configuration reads back otherwise"),
        Err(error) => panic!("a configuration is refused when it is read back: {error}"),
    }
    true
}

fn without_nulls(table: &mut toml_table::Table) {
    table.retain(|_, value| !value.is_null());
    for value in table.values_mut() {
        if let serde_json::Value::Object(inner) = value {
            without_nulls(inner);
        }
    }
}

/// A key template, a zero byte, then a file as `load` reads it.
fn check_load(bytes: &[u8]) -> bool {
    let split = bytes.iter().position(|byte| *byte == 0);
    let Some((template, file)) = split.and_then(|at| bytes.split_at_checked(at)) else {
        return false;
    };
    let Some(template) = std::str::from_utf8(template)
        .ok()
        .and_then(|text| Template::parse(text).ok())
    else {
        return false;
    };
    let Ok(lines) = Lines::read(Cursor::new(file.get(1..).unwrap_or_default().to_vec())) else {
        return false;
    };
    let (mut last, mut accepted) = (0, false);
    // A compressed file of a few bytes may hold very many lines.
    for line in lines.take(1000) {
        let line = match line {
            Ok(line) => line,
            Err(broken) => {
                assert!(broken.number > last, "line numbers rise");
                return accepted;
            }
        };
        assert!(line.number > last, "line numbers rise");
        last = line.number;
        let Ok(object) = Object::parse(&line.bytes) else {
            continue;
        };
        let Ok(again) = Object::parse(&object.without(|_| false)) else {
            panic!("a line that was written again is refused");
        };
        let same = |(a, b): (&(String, _), &(String, _))| same_field(a, b);
        assert!(
            again.0.len() == object.0.len() && again.0.iter().zip(&object.0).all(same),
            "a line reads back otherwise"
        );
        if let Ok(key) = template.key(&object.0, line.number) {
            assert!(
                (1..=strongroom::KEY_BYTES_MAX).contains(&key.len()),
                "a key out of range"
            );
            accepted = true;
        }
    }
    accepted
}

type Field = (String, Box<serde_json::value::RawValue>);

fn same_field(a: &Field, b: &Field) -> bool {
    a.0 == b.0 && a.1.get() == b.1.get()
}

fn check_template(bytes: &[u8]) -> bool {
    let Some(template) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| Template::parse(text).ok())
    else {
        return false;
    };
    let Ok(object) = Object::parse(br#"{"user":"u","ts":7,"id":"00ff"}"#) else {
        panic!("a constant object");
    };
    if let Ok(key) = template.key(&object.0, 3) {
        assert!(
            (1..=strongroom::KEY_BYTES_MAX).contains(&key.len()),
            "a key out of range"
        );
    }
    true
}

fn request(method: u8, message: &impl Message) -> Vec<u8> {
    let mut out = vec![method];
    out.extend_from_slice(&message.encode_to_vec());
    out
}

fn kv_samples() -> Vec<Vec<u8>> {
    let operation = |value: Option<&'static str>| kv::Operation {
        keyspace: "orders".into(),
        key: "o/1".into(),
        value: value.map(Into::into),
        ttl_ms: value.map(|_| 60_000),
        range: None,
    };
    let put = kv::PutRequest {
        keyspace: "orders".into(),
        key: "o/1".into(),
        value: "paid".into(),
        durability: kv::Durability::Replicated.into(),
        ttl_ms: Some(60_000),
    };
    let many = kv::GetManyRequest {
        keyspace: "orders".into(),
        keys: vec!["o/1".into(), "o/2".into()],
        snapshot_id: 7,
    };
    let batch = kv::BatchRequest {
        operations: vec![operation(Some("paid")), operation(None)],
        durability: kv::Durability::Local.into(),
        conditions: vec![kv::Condition {
            keyspace: "orders".into(),
            key: "o/1".into(),
            value: None,
        }],
    };
    let edge = |key: &'static str, exclusive| kv::Bound {
        key: key.into(),
        exclusive,
    };
    let cleared = kv::BatchRequest {
        operations: vec![kv::Operation {
            keyspace: "orders".into(),
            range: Some(kv::KeyRange {
                start: Some(edge("o/", false)),
                end: Some(edge("o0", true)),
            }),
            ..kv::Operation::default()
        }],
        ..kv::BatchRequest::default()
    };
    let range = kv::RangeRequest {
        keyspace: "orders".into(),
        start: Some(edge("o/", false)),
        end: Some(edge("o0", true)),
        limit: 10,
        reverse: true,
        ..kv::RangeRequest::default()
    };
    let get = kv::GetRequest {
        keyspace: "orders".into(),
        key: "o/1".into(),
        snapshot_id: 4,
    };
    vec![
        request(1, &get),
        request(2, &put),
        request(4, &batch),
        request(5, &range),
        request(7, &many),
        request(4, &cleared),
    ]
}

fn admin_samples() -> Vec<Vec<u8>> {
    let promote = admin::PromoteRequest {
        expect_primary: "db1".into(),
        expect_epoch: Some(65537),
        max_loss_bytes: Some(0),
        dry_run: true,
    };
    let revoke = admin::RevokeTokenRequest {
        token_id: "0123456789abcdef".into(),
    };
    let list = admin::ListTenantsRequest {
        after_id: 3,
        limit: 9,
    };
    let backup = admin::CreateBackupRequest {
        directory: "/backup".into(),
        escrow_recipient: "srescrow178536a80034b1c68a9831caf871c548740282a743a9d51623e09a3122ccadd6937d8fd2d"
            .into(),
        escrow_path: "/escrow".into(),
    };
    let options = admin::SetOptionsRequest {
        cache_bytes: Some(64 << 20),
        replicated_timeout_ms: Some(0),
        ..admin::SetOptionsRequest::default()
    };
    vec![
        request(1, &promote),
        request(4, &list),
        request(7, &revoke),
        request(9, &backup),
        request(17, &options),
    ]
}

fn token_samples() -> Vec<Vec<u8>> {
    vec![format!("0123456789abcdef.{}", "5a".repeat(32)).into_bytes()]
}

fn configuration_samples() -> Vec<Vec<u8>> {
    let node = "[node]\nname = \"db1\"\ndata_dir = \"data\"\n[keys]\nfile = \"keys/strongroom.key\"\n";
    let plain = "[tenants]\nlisten = \"127.0.0.1:0\"\ninsecure = true\n[admin]\nlisten = \"127.0.0.1:0\"\ninsecure = true\n";
    let mut pair = String::from(node);
    let _ = write!(
        pair,
        "[tenants]\nlisten = \"0.0.0.0:7300\"\ntls = {{ cert = \"t.crt\", key = \"t.pem\" }}\n\
         [admin]\nlisten = \"127.0.0.1:7301\"\ntls = {{ cert = \"a.crt\", key = \"a.pem\", client_ca = \"a-ca.crt\" }}\n\
         [replication]\nlisten = \"0.0.0.0:7302\"\npeer = \"db2:7302\"\nwindow_bytes = 1048576\n\
         tls = {{ cert = \"r.crt\", key = \"r.pem\", ca = \"r-ca.crt\" }}\n[engine]\ndurability = \"replicated\"\n"
    );
    vec![format!("{node}{plain}").into_bytes(), pair.into_bytes()]
}

fn load_samples() -> Vec<Vec<u8>> {
    let lines = b"{user}\\x00{ts:be8}/{#:be4}\0{\"user\":\"u\\u00e9\",\"ts\":1300487820,\"x\":[1, 2]}\n\n{\"user\":\"b\",\"ts\":2}\r\n";
    // One frame of zstd that holds one raw block: `{"a":1}` and a line end.
    let frame = [
        0x28, 0xb5, 0x2f, 0xfd, 0x20, 8, 0x41, 0, 0, b'{', b'"', b'a', b'"', b':', b'1', b'}', b'\n',
    ];
    let compressed = [&b"{a}\0"[..], &frame].concat();
    vec![lines.to_vec(), compressed]
}

fn template_samples() -> Vec<Vec<u8>> {
    vec![
        br"{user}\x00{ts:be8}/{#:be4}\{".to_vec(),
        "é{id:hex}{#}".as_bytes().to_vec(),
    ]
}
