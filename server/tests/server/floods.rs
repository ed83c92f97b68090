//! Connections that speak HTTP/2 well, and far too much of it: they end or are held back, and others are served.
//!
//! The frames are made by hand, because no client library sends them.

use std::sync::atomic::{AtomicU64, Ordering};

use strongroom_client::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::{TestNode, within};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM_AND_HEADERS: u8 = 5;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 0xb];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `POST https /` in HPACK's static table: a request that no handler waits for.
fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM_AND_HEADERS, stream, &[0x83, 0x87, 0x84])
}

/// A connection whose preface is over.
async fn connection(node: &TestNode) -> TlsStream<TcpStream> {
    let mut tls = node.tls().await;
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    tls.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    tls
}

/// Reads frames until the connection ends; the error code of a GOAWAY, if one came.
async fn farewell(mut from: impl tokio::io::AsyncRead + Unpin) -> Option<[u8; 4]> {
    let mut code = None;
    let mut head = [0; 9];
    while from.read_exact(&mut head).await.is_ok() {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; len];
        if from.read_exact(&mut payload).await.is_err() {
            break;
        }
        if head[3] == GOAWAY {
            code = payload[4..8].first_chunk().copied();
        }
    }
    code
}

/// Writes and reads, so many times.
async fn served(client: &Client, times: u32) {
    // A key of its own: a call that was given up may have left a write under way.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let key = CALLS.fetch_add(1, Ordering::Relaxed).to_string();
    for i in 0..times {
        within("a write", client.put("k", key.clone(), i.to_string()))
            .await
            .unwrap();
        let value = within("a read", client.get("k", &key)).await.unwrap();
        assert_eq!(value.unwrap(), i.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_and_reset_without_end_then_that_connection_is_ended_and_others_served() {
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    let (from, mut to) = tokio::io::split(connection(&node).await);
    let flood = async {
        // Odd numbers, as a client's streams have; a hundred per write, so that resets come with their requests.
        for first in (1..).step_by(200) {
            let burst: Vec<u8> = (first..first + 200)
                .step_by(2)
                .flat_map(|stream| [request(stream), frame(RST_STREAM, 0, stream, &CANCEL)].concat())
                .collect();
            if to.write_all(&burst).await.is_err() {
                return;
            }
        }
    };
    let ended = within("the connection to end", async {
        let (code, ()) = tokio::join!(farewell(from), flood);
        code
    });
    let (code, ()) = tokio::join!(ended, served(&client, 20));
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    served(&client, 1).await;
}

/// Sends `flood` over and over and reads nothing, until nothing more is taken while the client is served often.
async fn held_back(flood: &[u8]) {
    /// More than the buffers of a connection on loopback can grow to.
    const MOST: usize = 64 << 20;
    let node = TestNode::start("").await;
    let (client, _) = node.tenant("acme").await;
    let mut tls = connection(&node).await;
    let mut taken = 0;
    loop {
        tokio::select! {
            biased;
            written = tls.write_all(flood) => match written {
                Ok(()) => taken += flood.len(),
                Err(_) => break,
            },
            () = served(&client, 50) => break,
        }
        assert!(taken < MOST, "answers that nobody reads are owed without end");
    }
    served(&client, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_sent_and_answers_not_read_then_that_connection_is_held_back_and_others_served() {
    held_back(&frame(PING, 0, 0, b"pingping").repeat(4000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_sent_and_answers_not_read_then_that_connection_is_held_back_and_others_served() {
    held_back(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(4000)).await;
}
