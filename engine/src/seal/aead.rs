//! The cipher: AES-256-GCM behind one trait, so that the crate can change and the bytes cannot.
//!
//! `aes-gcm` is the default; the feature `aws-lc-rs` uses that crate instead. Both give the same bytes
//! (cross-tested below), so files written by one are read by the other. Expanded keys are wiped on drop
//! by both: `aes-gcm` by its `zeroize` feature, AWS-LC by `OPENSSL_cleanse` in its `free`.

use super::{NONCE_BYTES, TAG_BYTES};

/// A piece did not open: the key is another one, or bytes or associated data are not what was sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OpenFailed;

impl std::fmt::Display for OpenFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a tag that does not match")
    }
}

impl std::error::Error for OpenFailed {}

/// A plaintext longer than the cipher allows (64 GiB): never with the limits of this engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SealFailed;

/// An expanded key.
pub(crate) trait Aead: Send + Sync + Sized {
    /// Expands `key`.
    fn new(key: &[u8; 32]) -> Self;
    /// Encrypts `text` in place; returns the tag.
    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], SealFailed>;
    /// Decrypts `text` in place if `tag` matches. On failure `text` holds nothing of the plaintext.
    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), OpenFailed>;
}

/// The cipher this build uses.
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) type DefaultAead = RustCrypto;
/// The cipher this build uses.
#[cfg(feature = "aws-lc-rs")]
pub(crate) type DefaultAead = AwsLc;

/// AES-256-GCM of the `aes-gcm` crate. Boxed: a key schedule that moved would leave copies behind.
#[cfg(any(test, not(feature = "aws-lc-rs")))]
pub(crate) struct RustCrypto(Box<aes_gcm::Aes256Gcm>);

#[cfg(any(test, not(feature = "aws-lc-rs")))]
impl Aead for RustCrypto {
    fn new(key: &[u8; 32]) -> RustCrypto {
        use aes_gcm::KeyInit;
        RustCrypto(Box::new(aes_gcm::Aes256Gcm::new(key.into())))
    }

    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], SealFailed> {
        use aes_gcm::AeadInOut;
        let tag = self
            .0
            .encrypt_inout_detached(nonce.into(), aad, text.into())
            .map_err(|_| SealFailed)?;
        Ok(tag.into())
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), OpenFailed> {
        use aes_gcm::AeadInOut;
        // Verifies before it decrypts: on failure `text` is still the ciphertext.
        self.0
            .decrypt_inout_detached(nonce.into(), aad, text.into(), tag.into())
            .map_err(|_| OpenFailed)
    }
}

/// AES-256-GCM of AWS-LC.
#[cfg(feature = "aws-lc-rs")]
pub(crate) struct AwsLc(aws_lc_rs::aead::LessSafeKey);

#[cfg(feature = "aws-lc-rs")]
impl Aead for AwsLc {
    fn new(key: &[u8; 32]) -> AwsLc {
        use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
        match UnboundKey::new(&AES_256_GCM, key) {
            Ok(unbound) => AwsLc(LessSafeKey::new(unbound)),
            // Fails for a wrong key length (the type forbids it) or without memory, where std aborts too.
            Err(_) => unreachable!("AES-256-GCM takes keys of 32 bytes"),
        }
    }

    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], SealFailed> {
        use aws_lc_rs::aead::{Aad, Nonce};
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
            .map_err(|_| SealFailed)?;
        tag.as_ref().try_into().map_err(|_| SealFailed)
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), OpenFailed> {
        use aws_lc_rs::aead::{Aad, Nonce};
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0
            .open_in_place_separate_tag(nonce, Aad::from(aad), tag, text)
            .map(|_| ())
            .map_err(|_| {
                // AWS-LC may leave unverified plaintext behind.
                text.fill(0);
                OpenFailed
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case 16 of the GCM specification (McGrew and Viega), with 96-bit nonce and AAD.
    fn gcm_vector<A: Aead>() {
        let bytes = |s: &str| hex::decode(s).unwrap();
        let key: [u8; 32] = bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
            .try_into()
            .unwrap();
        let nonce: [u8; 12] = bytes("cafebabefacedbaddecaf888").try_into().unwrap();
        let aad = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain = bytes(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ));
        let cipher = A::new(&key);
        let mut text = plain.clone();
        let tag = cipher.seal(&nonce, &aad, &mut text).unwrap();
        assert_eq!(
            hex::encode(&text),
            concat!(
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
                "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
            )
        );
        assert_eq!(hex::encode(tag), "76fc6ece0f4e1768cddf8853bb2d551b");
        cipher.open(&nonce, &aad, &mut text, &tag).unwrap();
        assert_eq!(text, plain);
    }

    #[test]
    fn aes_gcm_crate_matches_the_published_vector() {
        gcm_vector::<RustCrypto>();
    }

    #[cfg(feature = "aws-lc-rs")]
    #[test]
    fn aws_lc_matches_the_published_vector() {
        gcm_vector::<AwsLc>();
    }

    #[cfg(feature = "aws-lc-rs")]
    #[test]
    fn both_crates_give_the_same_bytes_and_open_each_others() {
        for len in (0..200).chain([4096, 65_537]) {
            let key = [len as u8; 32];
            let plain: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let (a, b) = (RustCrypto::new(&key), AwsLc::new(&key));
            let (mut one, mut two) = (plain.clone(), plain.clone());
            let tag_one = a.seal(&[3; 12], b"aad", &mut one).unwrap();
            let tag_two = b.seal(&[3; 12], b"aad", &mut two).unwrap();
            assert_eq!((&one, tag_one), (&two, tag_two), "{len}");
            a.open(&[3; 12], b"aad", &mut two, &tag_two).unwrap();
            b.open(&[3; 12], b"aad", &mut one, &tag_one).unwrap();
            assert_eq!((&one, &two), (&plain, &plain), "{len}");
            let mut bad = plain.clone();
            assert!(b.open(&[3; 12], b"aad", &mut bad, &[0; 16]).is_err());
        }
    }
}
