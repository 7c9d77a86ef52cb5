//! The tokens of edges. A token names its edge and what it may write; only its SHA-256 is kept (`token_key`, JSON).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use robustmq_common::ids::EdgeId;
use robustmq_common::limits;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rights::Rights;
use crate::store::keys::{Family, damaged, lane as keys};
use crate::store::{ScanLimit, Store, StoreError, WriteBatch, write};

/// What tokens begin with, so that secret scanners and people know one when they see it.
const PREFIX: &str = "rmq_";

#[derive(Debug, Serialize, Deserialize)]
struct TokenRecord {
    sha256: String,
    rights: Rights,
}

/// Why a token cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The edge has one already.
    #[error("edge {0} is registered already; remove it first to issue a new token")]
    Exists(EdgeId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// No token, or a wrong one.
    Unauthorised,
    /// There is no such edge.
    UnknownEdge,
}

const UNKNOWN: u8 = 0;
const NONE: u8 = 1;
const SOME: u8 = 2;

/// All tokens of one store. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    store: Arc<dyn Store>,
    registered: Arc<AtomicU8>,
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Tokens {
    /// The tokens of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, registered: Arc::new(AtomicU8::new(UNKNOWN)), changing: Arc::default() }
    }

    /// Registers an edge and issues its token, which is told this once only.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn add(&self, edge: &EdgeId, rights: Rights) -> Result<String, TokenError> {
        let _one_at_a_time = self.changing.lock().await;
        let key = keys::token_key(edge);
        if self.store.get(&key).await?.is_some() {
            return Err(TokenError::Exists(edge.clone()));
        }
        let secret: [u8; 32] = rand::random();
        let token = format!("{PREFIX}{}", hex(&secret));
        let record = TokenRecord { sha256: hex(&hash(&token)), rights };
        let value = serde_json::to_vec(&record).map_err(|error| damaged(&key, error))?;
        let mut batch = WriteBatch::new();
        batch.put(key, value);
        write(self.store.as_ref(), batch).await?;
        self.registered.store(SOME, Ordering::Release);
        Ok(token)
    }

    /// Removes an edge: from its next request on it is refused. False if there was none. What the cloud knows of its lanes stays, so that
    /// nothing is taken twice should it come back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove(&self, edge: &EdgeId) -> Result<bool, StoreError> {
        let _one_at_a_time = self.changing.lock().await;
        let key = keys::token_key(edge);
        let existed = self.store.get(&key).await?.is_some();
        let mut batch = WriteBatch::new();
        batch.delete(key);
        write(self.store.as_ref(), batch).await?;
        self.registered.store(UNKNOWN, Ordering::Release);
        Ok(existed)
    }

    /// Registered edges after `after`, in order, at most [`limits::UPLINK_LISTED_EDGES`], with their rights.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, after: Option<&EdgeId>) -> Result<Vec<(EdgeId, Rights)>, StoreError> {
        let mut range = Family::Token.range();
        if let Some(after) = after {
            let mut start = keys::token_key(after).to_vec();
            start.push(0);
            range.start = start.into();
        }
        let page = self.store.scan(range, ScanLimit::items(limits::UPLINK_LISTED_EDGES)).await?;
        page.items
            .iter()
            .map(|(key, value)| {
                let parsed = keys::LaneKey::parse(key).map_err(|error| damaged(key, error))?;
                let (keys::LaneKey::Token(edge)
                | keys::LaneKey::Edge(edge)
                | keys::LaneKey::Lane(edge, ..)) = parsed;
                let record: TokenRecord =
                    serde_json::from_slice(value).map_err(|error| damaged(key, error))?;
                Ok((edge, record.rights))
            })
            .collect()
    }

    /// Whether any edge is registered. From then on each has to show its token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn any(&self) -> Result<bool, StoreError> {
        match self.registered.load(Ordering::Acquire) {
            NONE => Ok(false),
            SOME => Ok(true),
            _ => {
                let _one_at_a_time = self.changing.lock().await;
                let page = self.store.scan(Family::Token.range(), ScanLimit::items(1)).await?;
                let found = !page.items.is_empty();
                self.registered.store(if found { SOME } else { NONE }, Ordering::Release);
                Ok(found)
            }
        }
    }

    /// What `token` allows `edge`.
    pub(super) async fn check(
        &self,
        edge: &EdgeId,
        token: &str,
    ) -> Result<Result<Rights, Denied>, StoreError> {
        let key = keys::token_key(edge);
        let Some(value) = self.store.get(&key).await? else {
            return Ok(Err(Denied::UnknownEdge));
        };
        let record: TokenRecord =
            serde_json::from_slice(&value).map_err(|error| damaged(&key, error))?;
        let presented = hex(&hash(token));
        Ok(if same(presented.as_bytes(), record.sha256.as_bytes()) {
            Ok(record.rights)
        } else {
            Err(Denied::Unauthorised)
        })
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares in a time that does not depend on where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use robustmq_common::ids::EdgeId;

    use super::{Denied, Rights, Tokens, same};
    use crate::store::MemoryStore;

    fn edge(name: &str) -> EdgeId {
        EdgeId::new(name).expect("a legal name")
    }

    #[tokio::test]
    async fn a_token_lets_in_its_own_edge_until_it_is_removed() {
        let tokens = Tokens::new(Arc::new(MemoryStore::new()));
        assert!(!tokens.any().await.expect("reads"));
        let rights = Rights { write: vec!["plant.*".to_owned()] };
        let token = tokens.add(&edge("a"), rights.clone()).await.expect("issued");
        let other = tokens.add(&edge("b"), Rights::all()).await.expect("issued");
        assert!(tokens.add(&edge("a"), Rights::all()).await.is_err(), "registered already");
        assert!(tokens.any().await.expect("reads"));
        let check =
            async |name: &str, token: &str| tokens.check(&edge(name), token).await.expect("reads");
        assert_eq!(check("a", &token).await, Ok(rights.clone()));
        assert_eq!(check("a", &other).await, Err(Denied::Unauthorised));
        assert_eq!(check("a", "").await, Err(Denied::Unauthorised));
        assert_eq!(check("c", &token).await, Err(Denied::UnknownEdge));
        let listed = tokens.list(None).await.expect("reads");
        assert_eq!(listed, [(edge("a"), rights), (edge("b"), Rights::all())]);
        assert_eq!(tokens.list(Some(&edge("a"))).await.expect("reads").len(), 1);
        assert!(tokens.remove(&edge("a")).await.expect("removed"));
        assert!(!tokens.remove(&edge("a")).await.expect("removed"));
        assert_eq!(check("a", &token).await, Err(Denied::UnknownEdge));
        assert!(tokens.any().await.expect("reads"));
    }

    #[tokio::test]
    async fn only_a_hash_of_the_token_is_kept() {
        let store = Arc::new(MemoryStore::new());
        let tokens = Tokens::new(store.clone());
        let token = tokens.add(&edge("a"), Rights::all()).await.expect("issued");
        let key = crate::store::keys::lane::token_key(&edge("a"));
        let kept = crate::store::Store::get(store.as_ref(), &key).await.expect("reads");
        let kept = String::from_utf8(kept.expect("there").to_vec()).expect("JSON");
        assert!(!kept.contains(&token) && !kept.contains(&token[4..]));
    }

    #[test]
    fn comparison_is_of_all_bytes() {
        assert!(same(b"ab", b"ab"));
        assert!(!same(b"ab", b"ac"));
        assert!(!same(b"ab", b"abc"));
        assert!(same(b"", b""));
    }
}
