//! Who may connect: the users file, and the slow check of a password.
//!
//! ```text
//! # a comment
//! NAME:pbkdf2-sha256$ITERATIONS$SALT$HASH        salt and hash in hex, as `robustmq-edge hash-password` prints them
//! ```
//!
//! A check takes tens of milliseconds on purpose, so it is made by the connection, one at a time, before the hub sees the
//! CONNECT. What the hub then sees instead of the password is a proof that nobody outside this process can know.
//!
//! **Invariant:** an unknown name costs as much time as a wrong password.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ring::pbkdf2;
use robustmq_common::config::Invalid;
use robustmq_common::limits;
use robustmq_common::mqtt::packet::{Connect, Password};
use tokio::sync::Semaphore;

const SCHEME: &str = "pbkdf2-sha256";
const HASH_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// One user's password, as it is kept.
#[derive(Clone)]
struct Hashed {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

/// All users.
pub(super) struct Users {
    users: HashMap<String, Hashed>,
    /// Checked where there is no such user, for the time that it takes.
    nobody: Hashed,
    proof: Bytes,
    /// One check at a time: a crowd of strangers must not take all cores.
    turn: Semaphore,
}

impl Users {
    /// Reads the users file.
    ///
    /// # Errors
    /// [`Invalid`] names the file and the line.
    pub(super) fn read(file: &Path) -> Result<Self, Invalid> {
        let refused = |reason: String| {
            Invalid::new("mqtt.users_file", format!("{}: {reason}", file.display()))
        };
        let text = std::fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
        Self::parse(&text).map_err(refused)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hashed) = line
                .split_once(':')
                .and_then(|(name, hashed)| Some((name, Hashed::parse(hashed)?)))
                .ok_or_else(|| {
                    format!(
                        "line {} is not NAME:HASH as `robustmq-edge hash-password` prints it",
                        index + 1
                    )
                })?;
            if users.insert(name.to_owned(), hashed).is_some() {
                return Err(format!("line {}: there is a user {name} already", index + 1));
            }
        }
        if users.is_empty() {
            return Err("it names no user, so nobody could connect".to_owned());
        }
        let proof: [u8; 32] = rand::random();
        let slowest = users.values().map(|user: &Hashed| user.iterations).max();
        let slowest = slowest.unwrap_or(limits::EDGE_PASSWORD_ITERATIONS);
        Ok(Self {
            users,
            nobody: Hashed::of(b"", slowest),
            proof: Bytes::copy_from_slice(&proof),
            turn: Semaphore::new(1),
        })
    }

    /// Checks user name and password, and puts the proof, or nothing, in the password's place.
    pub(super) async fn check(self: &Arc<Self>, connect: &mut Connect) {
        let password = connect.password.take();
        let name = connect.username.clone();
        let Ok(_turn) = self.turn.acquire().await else { return };
        let users = Arc::clone(self);
        let verified = tokio::task::spawn_blocking(move || {
            let known = name.and_then(|name| users.users.get(&*name));
            let password = password.as_ref().map_or(&[][..], |password| &password.0);
            let right = known.unwrap_or(&users.nobody).matches(password);
            right && known.is_some()
        });
        if verified.await.unwrap_or(false) {
            connect.password = Some(Password(self.proof.clone()));
        }
    }

    /// Whether [`Users::check`] found the password right.
    pub(super) fn is_proven(&self, connect: &Connect) -> bool {
        connect.password.as_ref().is_some_and(|password| password.0 == self.proof)
    }
}

impl Hashed {
    fn of(password: &[u8], iterations: NonZeroU32) -> Self {
        let salt: [u8; SALT_BYTES] = rand::random();
        let mut hash = vec![0; HASH_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password, &mut hash);
        Self { iterations, salt: salt.to_vec(), hash }
    }

    fn matches(&self, password: &[u8]) -> bool {
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::verify(algorithm, self.iterations, &self.salt, password, &self.hash).is_ok()
    }

    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('$').collect();
        let [SCHEME, iterations, salt, hash] = parts.as_slice() else { return None };
        let iterations: NonZeroU32 = iterations.parse().ok()?;
        let (salt, hash) = (from_hex(salt)?, from_hex(hash)?);
        let sound = iterations <= limits::EDGE_PASSWORD_ITERATIONS_MAX && hash.len() == HASH_BYTES;
        sound.then_some(Self { iterations, salt, hash })
    }
}

/// A line for the users file; the more iterations, the longer a check takes, for an attacker too.
#[must_use]
pub fn users_line(name: &str, password: &[u8], iterations: NonZeroU32) -> String {
    let Hashed { iterations, salt, hash } = Hashed::of(password, iterations);
    format!("{name}:{SCHEME}${iterations}${}${}", to_hex(&salt), to_hex(&hash))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => {
            let digit = |character: u8| char::from(character).to_digit(16);
            u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
        }
        _ => None,
    };
    digits.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use robustmq_common::mqtt::packet::{Connect, Password, ProtocolVersion};

    use super::{Users, from_hex, users_line};

    const FEW: NonZeroU32 = NonZeroU32::new(123).unwrap();

    fn connect(name: Option<&str>, password: Option<&[u8]>) -> Connect {
        Connect {
            version: ProtocolVersion::V5,
            clean_start: true,
            keep_alive_secs: 0,
            client_id: "c".into(),
            will: None,
            username: name.map(Into::into),
            password: password.map(|password| Password(password.to_vec().into())),
            properties: Default::default(),
        }
    }

    #[tokio::test]
    async fn the_right_password_proves_and_nothing_else_does() {
        let file = format!("# people\n\n{}\n", users_line("press", b"s3cret", FEW));
        let users = Arc::new(Users::parse(&file).unwrap());
        let check = async |name: Option<&str>, password: Option<&[u8]>, expected: bool| {
            let mut connect = connect(name, password);
            users.check(&mut connect).await;
            assert_eq!(users.is_proven(&connect), expected, "{name:?} {password:?}");
        };
        check(Some("press"), Some(b"s3cret"), true).await;
        check(Some("press"), Some(b"S3cret"), false).await;
        check(Some("press"), Some(b""), false).await;
        check(Some("press"), None, false).await;
        check(Some("other"), Some(b"s3cret"), false).await;
        check(Some("other"), Some(b""), false).await;
        check(None, Some(b"s3cret"), false).await;
        check(None, None, false).await;
        let proof = users.proof.clone();
        check(Some("press"), Some(&proof), false).await;
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = users_line("a", b"x", FEW);
        let check = |text: String, part: &str| {
            let error = Users::parse(&text).err().unwrap();
            assert!(error.contains(part), "{error}");
        };
        check(String::new(), "no user");
        check(format!("{good}\n{good}"), "line 2");
        check("a:plain".to_owned(), "line 1");
        check("a".to_owned(), "line 1");
        check(good.replace("$123$", "$4000000000$"), "line 1");
        check(good.replace("$123$", "$0$"), "line 1");
        check(good[..good.len() - 2].to_owned(), "line 1");
    }

    #[test]
    fn hex_is_read_strictly() {
        assert_eq!(from_hex("00ff"), Some(vec![0, 255]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("+1"), None);
    }
}
