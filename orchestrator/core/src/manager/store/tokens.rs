//! Who is let into the cluster: tokens that work once, and the numbers of nodes.
//!
//! A token is known by its digest alone, so that nobody who reads the store can use one. Managers
//! agree on every redemption, so that of two that are shown one token only one succeeds.

use wavetank_model::{NodeId, NodeRole, OperationError};
use wavetank_port::WallTime;

use super::Store;
use super::operations::invalid;
use super::records::TokenRecord;

/// Tokens remembered, used ones too. The one that expires first gives way to a new one.
const TOKENS_MAX: usize = 1024;
/// Clients up to this number are managers' own and the operators' whom the cluster was made with.
const CLIENT_NUMBERS_RESERVED: u32 = 10_000;
/// Hex digits of a SHA-256.
const DIGEST_LENGTH: usize = 64;

/// Remembers a new token.
pub(super) fn create(
    store: &mut Store,
    digest: &str,
    role: NodeRole,
    expires: WallTime,
) -> Result<(), OperationError> {
    let hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if digest.len() != DIGEST_LENGTH || !digest.bytes().all(hex) {
        return Err(invalid("a token's digest is 64 lower-case hex digits"));
    }
    let tokens = &mut store.data.tokens;
    if tokens.contains_key(digest) {
        return Err(invalid("the same token was created before"));
    }
    if tokens.len() >= TOKENS_MAX {
        let first = tokens.iter().min_by_key(|(_, token)| token.expires);
        if let Some(first) = first.map(|(digest, _)| digest.clone()) {
            tokens.remove(&first);
        }
    }
    let token = TokenRecord {
        role,
        expires,
        redeemed_by: None,
    };
    tokens.insert(digest.to_owned(), token);
    Ok(())
}

/// Uses a token up and says who its bearer is from now on.
pub(super) fn redeem(
    store: &mut Store,
    digest: &str,
    now: WallTime,
) -> Result<NodeId, OperationError> {
    let token = store.data.tokens.get(digest);
    let token = token.ok_or_else(|| OperationError::NotFound {
        what: "join token".to_owned(),
    })?;
    if let Some(node) = token.redeemed_by {
        return Err(invalid(format!("the join token was used by {node}")));
    }
    if token.expires <= now {
        return Err(invalid("the join token has expired"));
    }
    let node = next_node(store, token.role)?;
    note_number(store, node);
    if let Some(token) = store.data.tokens.get_mut(digest) {
        token.redeemed_by = Some(node);
    }
    Ok(node)
}

/// A node that never was, as far as managers know.
fn next_node(store: &Store, role: NodeRole) -> Result<NodeId, OperationError> {
    let data = &store.data;
    let known = data
        .nodes
        .keys()
        .chain(data.members.values())
        .chain(data.joined.keys())
        .chain(data.clients.keys());
    let known = known
        .filter(|node| node.role == role)
        .map(|node| node.number);
    let given = data.numbers.get(&role).copied();
    let reserved = match role {
        NodeRole::Client => CLIENT_NUMBERS_RESERVED,
        NodeRole::Manager | NodeRole::Agent => 0,
    };
    let last = known.chain(given).chain([reserved]).max().unwrap_or(0);
    let number = last
        .checked_add(1)
        .ok_or_else(|| invalid(format!("there is no number left for a {}", role.name())))?;
    Ok(NodeId { role, number })
}

/// Whoever comes next gets a higher number than this node, also when it is forgotten.
pub(super) fn note_number(store: &mut Store, node: NodeId) {
    let last = store.data.numbers.entry(node.role).or_default();
    *last = node.number.max(*last);
}
