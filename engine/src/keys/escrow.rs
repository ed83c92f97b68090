//! Keys sealed to the holder of a secret: what a restore needs, kept apart from backups.
//!
//! HPKE (RFC 9180), base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. The engine needs only
//! the public half, so a machine that makes backups cannot read them back.
//!
//! ```text
//! offset size field      (little-endian)
//!      0  128 header      kind 5, number = keystore version
//!    128   32 recipient   public key
//!    160   32 encapsulated key
//!    192    8 length      of the rest, without the checksum
//!    200    4 crc32       IEEE, over bytes [0, 200)
//!    204    … ciphertext ‖ tag   of KeyChanges (changes.rs), full; AAD is bytes [0, 204)
//! ```
//!
//! Text forms, one line: `srescrow1` (public) or `srescrowsecret1` ‖ 64 hexadecimal digits of the key ‖ 8 of
//! the SHA-256 of the prefix and the key: a mistyped recipient would seal keys to nobody.

use std::path::Path;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::changes::KeyChanges;
use super::key_file::{parse_hex, push_hex};
use super::wrap::refused;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Io, OsRng, durable};
use crate::seal::{FileHeader, FileKind};
use crate::types::{Chain, Epoch};

const INFO: &[u8] = b"strongroom/1/escrow";
const PUBLIC_PREFIX: &str = "srescrow1";
const SECRET_PREFIX: &str = "srescrowsecret1";
pub(super) const CLEAR_BYTES: usize = FileHeader::BYTES + 32 + 32 + 8 + 4;
const SECRET_FILE_BYTES_MAX: u64 = 4096;
/// Where errors about escrow bytes point: they are handed over without a name.
const NAME: &str = "escrow";

type Public = <X25519HkdfSha256 as Kem>::PublicKey;
type Secret = <X25519HkdfSha256 as Kem>::PrivateKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

/// Public half of an escrow key pair (X25519): whoever holds the secret half may restore.
#[derive(Clone)]
pub struct EscrowRecipient(Public);

/// Secret half. Wiped when dropped.
pub struct EscrowSecret(Secret);

impl EscrowSecret {
    /// New random key pair.
    pub fn generate() -> Result<EscrowSecret> {
        let mut seed = Zeroizing::new([0u8; 32]);
        crate::seal::fill(&OsRng, seed.as_mut())?;
        Ok(EscrowSecret(X25519HkdfSha256::derive_keypair(seed.as_slice()).0))
    }

    /// Writes the secret file (mode 0600). `AlreadyExists` rather than replacing a file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (io, path) = (Io::os(), path.as_ref());
        if io
            .vfs
            .exists(path)
            .map_err(|e| Error::io("looking for the escrow secret", path, e))?
        {
            return Err(Error::new(ErrorKind::AlreadyExists, "there is a file already").at(path));
        }
        let mut bytes = self.0.to_bytes();
        let mut text = to_text(SECRET_PREFIX, &bytes);
        zeroize::Zeroize::zeroize(bytes.as_mut_slice());
        text.push('\n');
        durable::write_file_atomic(&io, path, text.as_bytes())
    }

    /// Reads the secret file. `KeyRefused` with the reason if it is missing or malformed.
    pub fn load(path: impl AsRef<Path>) -> Result<EscrowSecret> {
        let (io, path) = (Io::os(), path.as_ref());
        let read = |e| {
            refused("the escrow secret cannot be read")
                .with_source(e)
                .at(path)
        };
        let malformed = || refused("the escrow secret is malformed").at(path);
        let file = io.vfs.open(path).map_err(read)?;
        let len = file.len().map_err(read)?;
        if len > SECRET_FILE_BYTES_MAX {
            return Err(malformed());
        }
        let mut bytes = Zeroizing::new(vec![0u8; len as usize]);
        file.read_exact_at(&mut bytes, 0).map_err(read)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
        let key = from_text(SECRET_PREFIX, text).ok_or_else(malformed)?;
        Secret::from_bytes(key.as_slice())
            .map(EscrowSecret)
            .map_err(|_| malformed())
    }

    /// Public half.
    pub fn recipient(&self) -> EscrowRecipient {
        EscrowRecipient(X25519HkdfSha256::sk_to_pk(&self.0))
    }
}

impl EscrowRecipient {
    /// Text form: "srescrow1" + hex.
    pub fn to_text(&self) -> String {
        to_text(PUBLIC_PREFIX, &self.0.to_bytes()).to_string()
    }

    /// Reads the text form. `Invalid` if it is another text, or mistyped.
    pub fn parse(text: &str) -> Result<EscrowRecipient> {
        let invalid = || Error::new(ErrorKind::Invalid, "not an escrow recipient, or mistyped");
        let key = from_text(PUBLIC_PREFIX, text).ok_or_else(invalid)?;
        Public::from_bytes(key.as_slice())
            .map(EscrowRecipient)
            .map_err(|_| invalid())
    }
}

/// Seals `changes` to `recipient`.
pub(crate) fn seal_escrow(changes: &KeyChanges, recipient: &EscrowRecipient, io: &Io) -> Result<Vec<u8>> {
    let failed = |_| Error::new(ErrorKind::Invalid, "the escrow recipient's key is unusable");
    let header = FileHeader::new(
        io,
        FileKind::Escrow,
        Epoch::ZERO,
        changes.version,
        Chain::default(),
    )?;
    let plain = changes.encode();
    let mut random = Drawn {
        bytes: Zeroizing::new([0u8; 64]),
        used: 0,
    };
    crate::seal::fill(&*io.rng, random.bytes.as_mut())?;
    let (encapsulated, mut context) = hpke::setup_sender_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &recipient.0,
        INFO,
        &mut random,
    )
    .map_err(failed)?;
    if random.used > random.bytes.len() {
        return Err(Error::new(
            ErrorKind::Io,
            "encapsulation needed more random bytes than it was given",
        ));
    }
    let sealed_len = plain.len() + crate::seal::TAG_BYTES;
    let mut out = Vec::with_capacity(CLEAR_BYTES + sealed_len);
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(&recipient.0.to_bytes());
    out.extend_from_slice(&encapsulated.to_bytes());
    out.extend_from_slice(&(sealed_len as u64).to_le_bytes());
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    let sealed = context.seal(&plain, &out).map_err(failed)?;
    out.extend_from_slice(&sealed);
    Ok(out)
}

/// Opens what [`seal_escrow`] made. `KeyRefused` if it was sealed to another recipient; `Corruption` for
/// damage; `Unsupported` when a newer version made it.
pub(crate) fn open_escrow(bytes: &[u8], secret: &EscrowSecret) -> Result<KeyChanges> {
    let path = Path::new(NAME);
    let damaged =
        |offset, expected: &str, found: &str| Error::corruption(path, offset, "escrow", expected, found);
    let header = FileHeader::decode(path, bytes, FileKind::Escrow)?;
    let (clear, sealed) = bytes
        .split_at_checked(CLEAR_BYTES)
        .ok_or_else(|| damaged(128, "204 bytes before the keys", "fewer"))?;
    let mut at = clear.get(FileHeader::BYTES..).unwrap_or_default();
    let recipient: [u8; 32] = super::changes::take(&mut at)?;
    let encapsulated: [u8; 32] = super::changes::take(&mut at)?;
    let length = u64::from_le_bytes(super::changes::take(&mut at)?);
    let crc = u32::from_le_bytes(super::changes::take(&mut at)?);
    if crc32fast::hash(clear.get(..CLEAR_BYTES - 4).unwrap_or_default()) != crc {
        return Err(damaged(200, "a checksum that matches", "another"));
    }
    if length != sealed.len() as u64 {
        return Err(damaged(192, "all the bytes it tells of", "another length"));
    }
    if recipient != secret.recipient().0.to_bytes().as_slice() {
        return Err(refused("the escrow was sealed to another recipient"));
    }
    let no_key = |_| damaged(160, "an encapsulated key", "other bytes");
    let encapsulated = Encapsulated::from_bytes(&encapsulated).map_err(no_key)?;
    let mut context = hpke::setup_receiver::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &secret.0,
        &encapsulated,
        INFO,
    )
    .map_err(no_key)?;
    let plain = context
        .open(sealed, clear)
        .map(Zeroizing::new)
        .map_err(|_| damaged(CLEAR_BYTES as u64, "a tag that matches", "another"))?;
    let changes = KeyChanges::decode(&plain)?;
    if !changes.full || changes.version != header.number {
        return Err(damaged(
            CLEAR_BYTES as u64,
            "the full key set of the header's version",
            "another",
        ));
    }
    Ok(changes)
}

/// The secret that a seed makes.
#[cfg(any(test, feature = "sim"))]
pub(super) fn secret_of(seed: &[u8; 32]) -> EscrowSecret {
    EscrowSecret(X25519HkdfSha256::derive_keypair(seed).0)
}

fn to_text(prefix: &str, key: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 2 * (key.len() + 4) + 1));
    text.push_str(prefix);
    push_hex(&mut text, key);
    push_hex(&mut text, &check(prefix, key));
    text
}

fn from_text(prefix: &str, text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let all = Zeroizing::new(parse_hex::<36>(text.trim().strip_prefix(prefix)?)?);
    let (key, found) = all.split_first_chunk::<32>()?;
    (check(prefix, key) == found).then(|| Zeroizing::new(*key))
}

fn check(prefix: &str, key: &[u8]) -> [u8; 4] {
    let mut hash = Sha256::new();
    hash.update(prefix.as_bytes());
    hash.update(key);
    let mut out = [0u8; 4];
    out.copy_from_slice(&hash.finalize()[..4]);
    out
}

/// Random bytes drawn before, for a library whose generators cannot fail.
struct Drawn {
    bytes: Zeroizing<[u8; 64]>,
    /// More than there are: the caller throws the result away.
    used: usize,
}

impl TryRng for Drawn {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Self::Error> {
        let mut out = [0u8; 4];
        self.try_fill_bytes(&mut out)?;
        Ok(u32::from_le_bytes(out))
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Self::Error> {
        let mut out = [0u8; 8];
        self.try_fill_bytes(&mut out)?;
        Ok(u64::from_le_bytes(out))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> std::result::Result<(), Self::Error> {
        let from = self.used;
        self.used = from.saturating_add(out.len());
        match self.bytes.get(from..self.used) {
            Some(bytes) => out.copy_from_slice(bytes),
            None => out.fill(0),
        }
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::TenantKeys;
    use crate::types::{DekVersion, TenantId};

    fn sample(tenants: u64) -> KeyChanges {
        let upserts = (0..tenants)
            .map(|id| TenantKeys {
                id: TenantId(id),
                name: if id == 0 {
                    String::new()
                } else {
                    format!("tenant {id}")
                },
                deks: vec![(DekVersion(1), Zeroizing::new([id as u8 + 1; 32]))],
            })
            .collect();
        KeyChanges {
            version: 8,
            full: true,
            next_tenant: tenants,
            upserts,
            deleted: Vec::new(),
        }
    }

    #[test]
    fn escrow_opens_with_its_secret_only() {
        let secret = EscrowSecret::generate().unwrap();
        let escrow = seal_escrow(&sample(3), &secret.recipient(), &Io::os()).unwrap();
        let opened = open_escrow(&escrow, &secret).unwrap();
        assert!(opened.encode().as_slice() == sample(3).encode().as_slice());
        let other = EscrowSecret::generate().unwrap();
        assert_eq!(
            open_escrow(&escrow, &other).err().unwrap().kind(),
            ErrorKind::KeyRefused
        );
        assert!(!escrow.windows(6).any(|w| w == b"tenant"));
        assert!(!escrow.windows(8).any(|w| w == [2; 8]));
    }

    #[test]
    fn same_keys_sealed_twice_share_no_bytes_beyond_the_clear() {
        let secret = EscrowSecret::generate().unwrap();
        let seal = || seal_escrow(&sample(2), &secret.recipient(), &Io::os()).unwrap();
        let (a, b) = (seal(), seal());
        assert_ne!(a[160..192], b[160..192]);
        assert_ne!(a[CLEAR_BYTES..], b[CLEAR_BYTES..]);
    }

    #[test]
    fn flipped_bits_and_cuts_of_an_escrow_are_corruption() {
        let secret = EscrowSecret::generate().unwrap();
        let good = seal_escrow(&sample(1), &secret.recipient(), &Io::os()).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            let error = open_escrow(&bad, &secret)
                .err()
                .unwrap_or_else(|| panic!("byte {at}"));
            assert_eq!(error.kind(), ErrorKind::Corruption, "byte {at}");
            assert!(open_escrow(&good[..at], &secret).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn recipient_survives_its_text_form_and_typing_errors_are_found() {
        let recipient = EscrowSecret::generate().unwrap().recipient();
        let text = recipient.to_text();
        assert!(text.starts_with("srescrow1"));
        assert_eq!(EscrowRecipient::parse(&text).unwrap().to_text(), text);
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] = if bad[at] == b'0' { b'1' } else { b'0' };
            let bad = String::from_utf8(bad).unwrap();
            assert!(EscrowRecipient::parse(&bad).is_err(), "{bad}");
            assert!(EscrowRecipient::parse(&text[..at]).is_err());
        }
    }

    #[test]
    fn secret_survives_its_file_which_is_private_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("escrow.secret");
        let secret = EscrowSecret::generate().unwrap();
        secret.save(&path).unwrap();
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let loaded = EscrowSecret::load(&path).unwrap();
        assert_eq!(loaded.recipient().to_text(), secret.recipient().to_text());
        assert_eq!(secret.save(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let missing = EscrowSecret::load(dir.path().join("none")).err().unwrap();
        assert_eq!(missing.kind(), ErrorKind::KeyRefused);
        let file = Io::os().vfs.open_rw(&path).unwrap();
        file.write_all_at(b"x", 30).unwrap();
        assert_eq!(
            EscrowSecret::load(&path).err().unwrap().kind(),
            ErrorKind::KeyRefused
        );
    }
}
