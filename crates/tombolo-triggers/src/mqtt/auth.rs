//! Users and their passwords.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use ring::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

/// Iterations for new passwords; OWASP's advice for PBKDF2 with SHA-256.
const ITERATIONS: u32 = 600_000;
/// More iterations are refused, so that a typing error does not cost minutes for each connection.
const ITERATIONS_MAX: u32 = 10_000_000;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
const SCHEME: &str = "pbkdf2-sha256";

/// Somebody who may connect with a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    pub name: String,
    pub password: PasswordHash,
}

/// What is stored of a password: `pbkdf2-sha256$ITERATIONS$SALT$HASH`, salt and hash in hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    hash: [u8; HASH_BYTES],
}

/// Why a text is no hash of a password.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum PasswordError {
    #[error("a password's hash is written {SCHEME}$ITERATIONS$SALT$HASH")]
    Form,
    #[error("the iterations are 1 to {ITERATIONS_MAX}")]
    Iterations,
    #[error("the system has no random numbers")]
    Random,
}

impl PasswordHash {
    /// The hash of a new password, with a random salt.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(password: &[u8]) -> Result<Self, PasswordError> {
        let mut salt = vec![0; SALT_BYTES];
        let filled = SystemRandom::new().fill(&mut salt);
        filled.map_err(|_| PasswordError::Random)?;
        let iterations = NonZeroU32::new(ITERATIONS).ok_or(PasswordError::Iterations)?;
        let mut hash = [0; HASH_BYTES];
        pbkdf2::derive(PBKDF2_HMAC_SHA256, iterations, &salt, password, &mut hash);
        Ok(Self {
            iterations,
            salt,
            hash,
        })
    }

    /// Whether this is the password; it takes the time of all iterations.
    pub fn verify(&self, password: &[u8]) -> bool {
        let (iterations, salt) = (self.iterations, &self.salt);
        pbkdf2::verify(PBKDF2_HMAC_SHA256, iterations, salt, password, &self.hash).is_ok()
    }
}

impl FromStr for PasswordHash {
    type Err = PasswordError;

    fn from_str(text: &str) -> Result<Self, PasswordError> {
        let mut parts = text.split('$');
        let (Some(SCHEME), Some(iterations), Some(salt), Some(hash), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(PasswordError::Form);
        };
        let iterations: u32 = iterations.parse().map_err(|_| PasswordError::Form)?;
        let iterations = NonZeroU32::new(iterations)
            .filter(|count| count.get() <= ITERATIONS_MAX)
            .ok_or(PasswordError::Iterations)?;
        let hash = unhex(hash).and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            iterations,
            salt: unhex(salt)
                .filter(|salt| !salt.is_empty())
                .ok_or(PasswordError::Form)?,
            hash: hash.ok_or(PasswordError::Form)?,
        })
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks_exact(2);
    pairs
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}${}$", self.iterations)?;
        self.salt
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("$")?;
        self.hash
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// A name that nobody else has: 128 random bits. None when the system has no random numbers.
pub fn random_name() -> Option<String> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).ok()?;
    Some(format!("auto-{:032x}", u128::from_be_bytes(random)))
}

/// From 0 to 1; a half when the system has no random numbers.
pub fn random_fraction() -> f64 {
    let mut random = [0; 4];
    match SystemRandom::new().fill(&mut random) {
        Ok(()) => f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

/// All users, and what spares the work of verifying the same password again.
///
/// A thousand devices that come back after a power cut would otherwise keep the node busy for
/// minutes. So the keyed digest of the last right password of each user is kept, in memory only.
pub struct Users {
    users: HashMap<String, Known>,
    key: [u8; 32],
    /// Verifying is work for a core: one at a time, so that guessing leaves the other cores alone.
    turn: Semaphore,
}

struct Known {
    hash: PasswordHash,
    seen: Mutex<Option<[u8; 32]>>,
}

impl Users {
    /// # Errors
    /// The system has no random numbers.
    pub fn new(users: Vec<User>) -> Result<Self, PasswordError> {
        let mut key = [0; 32];
        let filled = SystemRandom::new().fill(&mut key);
        filled.map_err(|_| PasswordError::Random)?;
        let known = |user: User| {
            let seen = Mutex::new(None);
            (
                user.name,
                Known {
                    hash: user.password,
                    seen,
                },
            )
        };
        Ok(Self {
            users: users.into_iter().map(known).collect(),
            key,
            turn: Semaphore::new(1),
        })
    }

    pub fn has(&self, name: &str) -> bool {
        self.users.contains_key(name)
    }

    /// Whether the user exists and this is the password.
    pub async fn verify(&self, name: &str, password: &[u8]) -> bool {
        let Some(known) = self.users.get(name) else {
            return false;
        };
        let digest = *blake3::keyed_hash(&self.key, password).as_bytes();
        let seen = *known.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_some_and(|seen| bool::from(seen.ct_eq(&digest))) {
            return true;
        }
        let Ok(_turn) = self.turn.acquire().await else {
            return false;
        };
        let (hash, password) = (known.hash.clone(), password.to_vec());
        let verified = tokio::task::spawn_blocking(move || hash.verify(&password)).await;
        let right = verified.unwrap_or(false);
        if right {
            *known.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by Python's hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2).
    const KNOWN: &str =
        "pbkdf2-sha256$2$73616c74$ae4d0c95af6b46d32d0adff928f06dd02a303f8ef3c251dfd6e2d85a95474c43";

    #[tokio::test]
    async fn only_the_right_password_lets_in() {
        let hash: PasswordHash = KNOWN.parse().unwrap();
        assert_eq!(hash.to_string(), KNOWN);
        let name = "anna".to_owned();
        let users = Users::new(vec![User {
            name,
            password: hash,
        }])
        .unwrap();
        for _ in 0..2 {
            assert!(users.verify("anna", b"password").await);
            assert!(!users.verify("anna", b"Password").await);
            assert!(!users.verify("anna", b"").await);
            assert!(!users.verify("bert", b"password").await);
        }
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        use PasswordError::*;
        for (text, why) in [
            ("secret", Form),
            ("pbkdf2-sha256$0$73$73", Iterations),
            ("pbkdf2-sha256$1$73616c74$zz", Form),
            ("pbkdf2-sha256$99999999999$73$73", Form),
            ("pbkdf2-sha256$99999999$73$73", Iterations),
        ] {
            assert_eq!(text.parse::<PasswordHash>(), Err(why), "{text}");
        }
    }
}
