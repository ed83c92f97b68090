//! The manifest: the full state, then one sealed edit after another.
//!
//! ```text
//! offset  size  field       (little-endian)
//!      0   128  header      kind 3; number = number of the manifest
//!    128    16  commitment  to the file key
//!    144     4  dek version of the system tenant's key it is sealed under
//!    148     4  crc32       IEEE, over bytes [128, 148)
//!    152     …  frames      the first holds a `Full`, the others an `Edit` each
//!
//! frame:
//!      0     4  len         bytes of `sealed`, 28 ..= FRAME_BYTES_MAX
//!      4     4  crc32       IEEE, over len and sealed
//!      8   len  sealed      nonce, ciphertext, tag
//! ```
//!
//! Sealed under the system tenant's file key with piece 6, the frame's offset in the file, a = number
//! of the frame from 0, b = first 8 bytes of the previous frame's tag (0 for the first): frames can be
//! neither moved, swapped, dropped from the middle, nor taken from another file.
//!
//! Valid if and only if: (1) header, commitment and their checksums hold; (2) the first frame is valid;
//! (3) every further frame is valid up to the end. A frame is valid if its length fits, its checksum
//! and its tag hold, and its content decodes.
//!
//! One exception: in a manifest that was not closed the bytes from some frame on (never the first) may
//! be torn, if no frame begins in them whose checksum holds. They are then an edit whose sync did not
//! return. Every edit is synced before the next is written, so there is at most one. Anything else
//! is corruption: a checksum that holds over a tag that does not, a good frame after a bad one.
//!
//! A manifest is written by one incarnation of the process and never appended to after a reopen, nor
//! after a failed write or sync.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::hooks::rare;
use crate::io::{File, Io, durable};
use crate::seal::{Aad, FileHeader, FileKey, FileKeys, FileKind, KeyAccess, Nonces, Piece, SEAL_OVERHEAD};
use crate::types::{Chain, DekVersion, Epoch, TenantId};

use super::current::Current;
use super::edit::{BadEdit, Edit, Full};
use super::parse_number;

/// Header, commitment, key version, checksum.
pub(super) const HEAD_BYTES: usize = FileHeader::BYTES + 16 + 4 + 4;
/// Length and checksum before each sealed piece.
const FRAME_HEAD_BYTES: usize = 8;
/// Largest sealed piece: a full state of some nine million tables.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// Bytes checksummed in search of a frame after a bad one: a fraction of a second. Random bytes of three
/// megabytes need as much, real torn edits next to nothing.
const RESYNC_BYTES_MAX: u64 = 1 << 30;

/// Beyond which length a manifest is replaced by a new one, whose full state has `full` bytes.
pub(super) fn replaced_beyond(full: u64) -> u64 {
    full.saturating_mul(4).max(1 << 20)
}

/// Longest manifest whose first frame, the full state, says it has `full` bytes. The edit that gets it beyond where it
/// is replaced may be a frame of the largest size. As much again as before that edit, because a full disk may have
/// room for edits and none for a new manifest.
pub(super) fn length_max(full: u64) -> u64 {
    replaced_beyond(full)
        .saturating_mul(2)
        .saturating_add(FRAME_BYTES_MAX as u64)
}

/// Where manifest `number` is.
pub(crate) fn path(db: &Path, number: u64) -> PathBuf {
    db.join(format!("manifest-{number:016x}"))
}

/// The number in a manifest's file name. None if it is no such name.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    parse_number(name.strip_prefix("manifest-")?)
}

/// Writes one manifest. After an error it must not be used again.
pub(crate) struct ManifestWriter {
    file: Arc<dyn File>,
    path: PathBuf,
    number: u64,
    file_id: [u8; 16],
    key: Arc<FileKey>,
    nonces: Nonces,
    /// Where the next frame goes.
    offset: u64,
    /// Bytes after the first frame.
    full_bytes: u64,
    /// Number of the next frame.
    frame: u64,
    /// From the last frame's tag.
    previous: u64,
    /// Over all bytes so far.
    digest: Sha256,
}

impl ManifestWriter {
    /// Writes a new manifest that begins with `full`. Neither synced nor named by `CURRENT` yet.
    pub fn create(
        io: &Io,
        db: &Path,
        number: u64,
        epoch: Epoch,
        keys: &FileKeys,
        full: &Full,
    ) -> Result<ManifestWriter> {
        let path = path(db, number);
        let header = FileHeader::new(io, FileKind::Manifest, epoch, number, Chain::default())?;
        let (version, key) = keys
            .for_writing(&header, TenantId::SYSTEM)
            .map_err(|e| e.at(&path))?;
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(&key.commitment());
        bytes.extend_from_slice(&version.0.to_le_bytes());
        let crc = crc32fast::hash(bytes.get(FileHeader::BYTES..).unwrap_or_default());
        bytes.extend_from_slice(&crc.to_le_bytes());

        let file = durable::create(io, &path)?;
        let mut writer = ManifestWriter {
            file,
            path,
            number,
            file_id: header.file_id,
            key,
            nonces: Nonces::new(Arc::clone(&io.rng)),
            offset: 0,
            full_bytes: 0,
            frame: 0,
            previous: 0,
            digest: Sha256::new(),
        };
        writer.write(&bytes)?;
        writer.append_plain(&full.encode())?;
        writer.full_bytes = writer.offset;
        Ok(writer)
    }

    /// Appends an edit. Durable after [`sync`](ManifestWriter::sync).
    ///
    /// After an error the file does not hold a whole frame more than before: a write that fails
    /// leaves out at least its last byte.
    pub fn append(&mut self, edit: &Edit) -> Result<()> {
        self.append_plain(&edit.encode())
    }

    /// Makes everything appended durable. Final when it fails.
    pub fn sync(&self) -> Result<()> {
        self.file
            .sync()
            .map_err(|e| Error::io("syncing the manifest", &self.path, e))
    }

    /// Number of this manifest.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes written.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Bytes written when it was new.
    pub fn full_bytes(&self) -> u64 {
        self.full_bytes
    }

    /// Length and SHA-256 of what was written.
    pub fn fingerprint(&self) -> (u64, [u8; 32]) {
        (self.offset, self.digest.clone().finalize().into())
    }

    fn append_plain(&mut self, plain: &[u8]) -> Result<()> {
        let too_long = || Error::new(ErrorKind::Invalid, "the edit is too large").at(&self.path);
        let len = plain.len() + SEAL_OVERHEAD;
        if len > FRAME_BYTES_MAX {
            return Err(too_long());
        }
        let len = u32::try_from(len).map_err(|_| too_long())?;
        let mut sealed = Vec::with_capacity(plain.len() + SEAL_OVERHEAD);
        let aad = aad(
            self.file_id,
            self.offset,
            plain.len() as u32,
            self.frame,
            self.previous,
        );
        self.key.seal(&self.nonces, &aad, plain, &mut sealed)?;
        let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + sealed.len());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&frame_crc(len, &sealed).to_le_bytes());
        bytes.extend_from_slice(&sealed);
        self.write(&bytes)?;
        self.frame += 1;
        self.previous = tag_start(&sealed);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, self.offset)
            .map_err(|e| Error::io("writing the manifest", &self.path, e))?;
        self.offset += bytes.len() as u64;
        self.digest.update(bytes);
        Ok(())
    }
}

/// What a manifest says.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// The first frame.
    pub full: Full,
    /// The others, oldest first, each with the offset of its frame.
    pub edits: Vec<(u64, Edit)>,
    /// Bytes of a torn edit at the end, which was never acknowledged.
    pub cut_bytes: u64,
}

/// Reads the manifest `current` names.
///
/// `Corruption` naming the file and offset; `Unsupported` if a newer version wrote it; `KeyRefused` if
/// it was sealed under another system key than the keystore's.
pub(crate) fn read(io: &Io, db: &Path, current: &Current, keys: &FileKeys) -> Result<Manifest> {
    let path = path(db, current.number);
    let bytes = read_bytes(io, &path, current.closed.map(|(length, _)| length))?;
    if let Some((_, digest)) = current.closed
        && <[u8; 32]>::from(Sha256::digest(&bytes)) != digest
    {
        return Err(Error::corruption(
            &path,
            0,
            "closed manifest's digest",
            "that of CURRENT",
            "another",
        ));
    }
    let (header, key) = open_head(&path, &bytes, current.number, keys)?;
    let mut frames = Frames {
        path: &path,
        bytes: &bytes,
        at: HEAD_BYTES,
        header: &header,
        key: &key,
        frame: 0,
        previous: 0,
    };

    let first = match frames.next()? {
        Next::Frame(_, plain) => plain,
        Next::End | Next::Bad(_) => {
            return Err(Error::corruption(
                &path,
                HEAD_BYTES as u64,
                "manifest",
                "the full state",
                "no valid frame",
            ));
        }
    };
    let decoded = |offset: u64, e: BadEdit| bad_edit(&path, offset, e);
    let full = Full::decode(&first).map_err(|e| decoded(HEAD_BYTES as u64, e))?;
    let mut edits = Vec::new();
    let cut_bytes = loop {
        match frames.next()? {
            Next::Frame(offset, plain) => {
                edits.push((offset, Edit::decode(&plain).map_err(|e| decoded(offset, e))?));
            }
            Next::End => break 0,
            Next::Bad(found) => {
                let offset = frames.at as u64;
                if current.closed.is_some() {
                    return Err(Error::corruption(
                        &path,
                        offset,
                        "frame of a closed manifest",
                        "a valid one",
                        found,
                    ));
                }
                if let Some(found_after) = frames.resync() {
                    rare!(ManifestRefused);
                    let found = format!("{found}, and {found_after}");
                    return Err(Error::corruption(
                        &path,
                        offset,
                        "manifest frame",
                        "a valid one",
                        found,
                    ));
                }
                rare!(ManifestEditTorn);
                break bytes.len() as u64 - offset;
            }
        }
    };
    Ok(Manifest {
        full,
        edits,
        cut_bytes,
    })
}

/// The bytes of the file, once its length is one that a manifest can have: a length that is damaged can be any.
///
/// - `closed`: the length it was closed with, if it was.
fn read_bytes(io: &Io, path: &Path, closed: Option<u64>) -> Result<Vec<u8>> {
    let file = durable::open(io, path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::corruption(path, 0, "manifest", "a file", "none"),
        _ => e,
    })?;
    let reading = |e| Error::io("reading the manifest", path, e);
    let len = file.len().map_err(reading)?;
    if let Some(length) = closed.filter(|length| *length != len) {
        rare!(ClosedManifestRefused);
        return Err(Error::corruption(
            path,
            0,
            "closed manifest's length",
            length,
            len,
        ));
    }
    let mut first = [0; 4];
    if len >= (HEAD_BYTES + first.len()) as u64 {
        file.read_exact_at(&mut first, HEAD_BYTES as u64)
            .map_err(reading)?;
    }
    // One out of range begins no frame: the manifest is refused however long it is.
    let full = usize::try_from(u32::from_le_bytes(first)).unwrap_or(usize::MAX);
    let most = length_max(if full <= FRAME_BYTES_MAX { full as u64 } else { 0 });
    let Some(len) = usize::try_from(len).ok().filter(|_| len <= most) else {
        let expected = format!("at most {most}");
        return Err(Error::corruption(path, 0, "manifest's length", expected, len));
    };
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).map_err(reading)?;
    Ok(bytes)
}

/// Checks what comes before the frames and finds the key.
fn open_head(path: &Path, bytes: &[u8], number: u64, keys: &FileKeys) -> Result<(FileHeader, Arc<FileKey>)> {
    let short = || {
        Error::corruption(
            path,
            0,
            "manifest",
            format!("at least {HEAD_BYTES} bytes"),
            bytes.len(),
        )
    };
    let (head, rest) = bytes.split_at_checked(FileHeader::BYTES).ok_or_else(short)?;
    let (commitment, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let (crc, _) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let header = FileHeader::decode(path, head, FileKind::Manifest)?;
    if header.number != number {
        return Err(Error::corruption(
            path,
            72,
            "manifest's number",
            number,
            header.number,
        ));
    }
    let mut computed = crc32fast::Hasher::new();
    computed.update(commitment);
    computed.update(version);
    if computed.finalize() != u32::from_le_bytes(*crc) {
        let at = FileHeader::BYTES as u64;
        return Err(Error::corruption(
            path,
            at,
            "manifest's key commitment",
            "its checksum",
            "another",
        ));
    }
    let version = DekVersion(u32::from_le_bytes(*version));
    match keys.for_reading(&header, TenantId::SYSTEM, version) {
        KeyAccess::Live(key) if key.matches(commitment) => Ok((header, key)),
        _ => Err(Error::new(
            ErrorKind::KeyRefused,
            "the manifest is sealed under a key that is not in this keystore: put back the keystore that belongs to it",
        )
        .at(path)),
    }
}

/// What comes next in a manifest.
enum Next {
    /// A valid frame at this offset: its content.
    Frame(u64, Vec<u8>),
    /// Nothing: the end.
    End,
    /// Bytes that are no frame; the text says why.
    Bad(&'static str),
}

/// Steps through the frames.
struct Frames<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    /// Where the next frame begins.
    at: usize,
    header: &'a FileHeader,
    key: &'a FileKey,
    frame: u64,
    previous: u64,
}

impl Frames<'_> {
    /// The next frame. An error if its checksum holds and its tag does not: a crash does not do that.
    fn next(&mut self) -> Result<Next> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(Next::End);
        }
        let sealed = match frame_at(rest) {
            Ok(sealed) => sealed,
            Err(found) => return Ok(Next::Bad(found)),
        };
        let plain_len = sealed.len().saturating_sub(SEAL_OVERHEAD) as u32;
        let aad = aad(
            self.header.file_id,
            self.at as u64,
            plain_len,
            self.frame,
            self.previous,
        );
        let plain = self.key.open(&aad, sealed).map_err(|_| {
            Error::corruption(self.path, self.at as u64, "manifest frame", "its tag", "another")
        })?;
        let offset = self.at as u64;
        self.at += FRAME_HEAD_BYTES + sealed.len();
        self.frame += 1;
        self.previous = tag_start(sealed);
        Ok(Next::Frame(offset, plain))
    }

    /// Looks for a frame with a good checksum after the bad one, or other proof that the rest is not
    /// one torn edit.
    ///
    /// Few places of a torn edit have a length that fits, so this is fast. Bytes made to have many are
    /// given up on, and are damage too.
    fn resync(&self) -> Option<String> {
        let mut left = RESYNC_BYTES_MAX;
        for at in self.at + 1..self.bytes.len() {
            let rest = self.bytes.get(at..).unwrap_or_default();
            if frame_at(rest).is_ok() {
                return Some(format!("a good frame at byte {at}"));
            }
            match left.checked_sub(frame_len(rest)) {
                Some(less) => left = less,
                None => return Some("more that looks like frames than an edit has".to_owned()),
            }
        }
        None
    }
}

/// Length of the sealed piece that the frame `bytes` begin with says it has; 0 if that does not fit.
fn frame_len(bytes: &[u8]) -> u64 {
    let Some((len, rest)) = bytes.split_first_chunk::<4>() else {
        return 0;
    };
    let len = u64::from(u32::from_le_bytes(*len));
    if len >= SEAL_OVERHEAD as u64 && len.saturating_add(4) <= rest.len() as u64 {
        len
    } else {
        0
    }
}

/// The sealed piece of the frame `bytes` begin with, or why there is none.
fn frame_at(bytes: &[u8]) -> std::result::Result<&[u8], &'static str> {
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or("a length cut short")?;
    let (crc, rest) = rest.split_first_chunk::<4>().ok_or("a checksum cut short")?;
    let len = u32::from_le_bytes(*len);
    let bytes = usize::try_from(len).unwrap_or(usize::MAX);
    if !(SEAL_OVERHEAD..=FRAME_BYTES_MAX).contains(&bytes) {
        return Err("a length out of range");
    }
    let (sealed, _) = rest.split_at_checked(bytes).ok_or("a frame cut short")?;
    if frame_crc(len, sealed) != u32::from_le_bytes(*crc) {
        return Err("a wrong checksum");
    }
    Ok(sealed)
}

pub(super) fn frame_crc(len: u32, sealed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len.to_le_bytes());
    hasher.update(sealed);
    hasher.finalize()
}

fn aad(file: [u8; 16], offset: u64, plain_len: u32, frame: u64, previous: u64) -> Aad {
    Aad {
        piece: Piece::Edit,
        tenant: TenantId::SYSTEM,
        file,
        offset,
        plain_len,
        a: frame,
        b: previous,
    }
}

/// First 8 bytes of the tag that ends a sealed piece.
fn tag_start(sealed: &[u8]) -> u64 {
    let tag = sealed.last_chunk::<16>().and_then(|tag| tag.first_chunk::<8>());
    u64::from_le_bytes(tag.copied().unwrap_or_default())
}

fn bad_edit(path: &Path, offset: u64, bad: BadEdit) -> Error {
    match bad {
        BadEdit::UnknownTag(tag) => Error::new(
            ErrorKind::Unsupported,
            format!("the manifest has a field this version does not know (tag {tag}): upgrade"),
        )
        .at(path),
        BadEdit::Malformed(found) => Error::corruption(path, offset, "manifest edit", "a valid one", found),
    }
}
