//! How a node comes into being: as the first of a new cluster, or by a token.

use std::path::PathBuf;

use wavetank_model::{NodeId, NodeRole};

use super::{ServeError, StateFolder};
use crate::admission;
use crate::config::ManagerSettings;
use crate::identity::{Ca, PrivateKey, Token};
use crate::os::Os;
use crate::platform::Platform as _;
use crate::transport::Limits;

/// The operator whom a cluster is made with. Clients that are let in later have higher numbers.
const FIRST_OPERATOR: NodeId = NodeId::client(10_000);

/// A new cluster.
#[derive(Clone, Debug)]
pub struct Founded {
    /// Its first manager.
    pub node: NodeId,
    /// The folder with which an operator reaches it.
    pub operator: PathBuf,
}

/// Makes a cluster: its authority, its first manager and its first operator.
pub fn init(settings: &ManagerSettings) -> Result<Founded, ServeError> {
    let folder = StateFolder::create(&settings.common.dir)?;
    folder.must_be_free()?;
    let os = Os::new();
    let now = os.wall();
    let node = NodeId::manager(1);
    let authority = Ca::create(PrivateKey::generate(&os), now).map_err(ServeError::Mint)?;
    let mint = |node| {
        let key = PrivateKey::generate(&os);
        let lifetime = settings.certificate_lifetime;
        authority
            .mint(node, key, now, lifetime)
            .map_err(ServeError::Mint)
    };
    let operator = folder.operator()?;
    operator
        .identity_files()
        .keep_identity(&mint(FIRST_OPERATOR)?)?;
    operator.keep_api(&[reachable(&settings.api)])?;
    folder.identity_files().keep_authority(&authority)?;
    folder.allow_founding()?;
    // Last: a folder with an identity is one that is complete.
    folder.identity_files().keep_identity(&mint(node)?)?;
    Ok(Founded {
        node,
        operator: operator.path().to_owned(),
    })
}

/// Where somebody on this machine reaches what listens there.
pub(super) fn reachable(address: &str) -> String {
    match address.parse::<std::net::SocketAddr>() {
        Ok(at) if at.ip().is_unspecified() => format!("127.0.0.1:{}", at.port()),
        Ok(_) | Err(_) => address.to_owned(),
    }
}

/// What it takes to join.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Where to live.
    pub dir: PathBuf,
    /// The invitation.
    pub token: Token,
    /// As what.
    pub role: NodeRole,
    /// Managers' addresses; the first that answers decides.
    pub managers: Vec<String>,
    /// Where the API is, for an operator.
    pub api: Vec<String>,
}

/// Joins a cluster, and keeps what it gives.
pub async fn join(request: &JoinRequest) -> Result<NodeId, ServeError> {
    let folder = StateFolder::create(&request.dir)?;
    folder.must_be_free()?;
    let joined = ask_around(request).await?;
    if let Some(authority) = &joined.authority {
        folder.identity_files().keep_authority(authority)?;
    }
    folder.keep_managers(&joined.addresses)?;
    if !request.api.is_empty() {
        folder.keep_api(&request.api)?;
    }
    folder.identity_files().keep_identity(&joined.identity)?;
    Ok(joined.identity.node())
}

/// A manager that cannot be reached has not seen the token, so the next one is asked. Any other
/// answer is final: the token may be spent.
async fn ask_around(request: &JoinRequest) -> Result<admission::Joined, ServeError> {
    let (os, limits) = (Os::new(), Limits::usual());
    let mut last = None;
    for address in &request.managers {
        let joined = admission::join(&os, &request.token, request.role, address, &limits);
        match joined.await {
            Err(error @ admission::AdmissionError::Ask { .. }) => last = Some(error),
            Err(error) => return Err(ServeError::Join(error)),
            Ok(joined) => return Ok(joined),
        }
    }
    Err(ServeError::Join(last.unwrap_or_else(|| {
        admission::AdmissionError::Ask {
            address: "nowhere".to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        }
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_reached_on_loopback() {
        assert_eq!(reachable("0.0.0.0:7444"), "127.0.0.1:7444");
        assert_eq!(reachable("10.0.0.1:7444"), "10.0.0.1:7444");
        assert_eq!(reachable("manager:7444"), "manager:7444");
    }
}
