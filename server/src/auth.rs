//! Who may call what. Each gate stands before its service and decides on headers and connection alone, before
//! any byte of a request message is read.
//!
//! - [`TenantGate`]: the node serves, and the bearer token is good. It leaves the [`Access`] in the request: the
//!   only way handlers learn of a tenant. The answer says in which epoch the call was let in.
//! - [`AdminGate`]: the connection's certificate, verified against the listener's own authority, carries the URI
//!   name `strongroom://role/admin`. What is missing or unreadable counts as no role.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use strongroom::{Engine, Epoch, Tenant};
use strongroom_client::{EPOCH_KEY, Kind};
use strongroom_replication::Node;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::budget::{Budget, Room};
use crate::status;
use crate::token_store::{Token, TokenStore, Watch};

/// What a certificate may say its holder is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Administers.
    Admin,
    /// The other node of the pair.
    Replica,
}

const ROLE_PREFIX: &str = "strongroom://role/";

/// The roles in a certificate that rustls has verified. None if anything in it cannot be read.
pub fn roles(leaf: &[u8]) -> Vec<Role> {
    let Ok((rest, certificate)) = X509Certificate::from_der(leaf) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    if !rest.is_empty() {
        return Vec::new();
    }
    let role = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => match uri.strip_prefix(ROLE_PREFIX)? {
            "admin" => Some(Role::Admin),
            "replica" => Some(Role::Replica),
            _ => None,
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(role).collect()
}

/// The other end of a connection; tonic puts it into every request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Roles in its certificate; none without TLS or without a certificate.
    pub roles: Arc<[Role]>,
}

/// A tenant's caller, let in.
#[derive(Clone)]
pub struct Access {
    /// Whose data it is.
    pub tenant: Tenant,
    /// The engine it is in: of this reign.
    pub engine: Engine,
    /// The reign it was let in under.
    pub epoch: Epoch,
    watch: Watch,
    node: Node,
    room: Room,
}

impl Access {
    /// Lets go of the room that the request's message took: once it is gone while the call goes on.
    pub fn release_room(&mut self) {
        self.room = Room::default();
    }

    /// Ok while the token is not revoked and the node still serves in the same reign: for calls that last.
    pub fn check(&self) -> Result<(), Status> {
        if self.watch.is_revoked() {
            return Err(unauthenticated());
        }
        let state = self.node.state();
        match state.primary() {
            Some(_) if state.epoch == self.epoch => Ok(()),
            Some(_) => Err(status::status(Kind::Gone, "the reign this call began in is over")),
            None => Err(status::not_serving(&state)),
        }
    }
}

/// The one answer to a missing, malformed, unknown, wrong, revoked or foreign token.
pub fn unauthenticated() -> Status {
    status::status(Kind::Unauthenticated, "a valid token is needed")
}

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Lets calls with a good token through to `S`.
#[derive(Clone)]
pub struct TenantGate<S> {
    inner: S,
    shared: Arc<TenantShared>,
}

struct TenantShared {
    node: Node,
    tokens: Arc<TokenStore>,
    budget: Budget,
}

impl<S> TenantGate<S> {
    /// Before `inner`. `budget` bounds the request bytes held at once.
    pub fn new(inner: S, node: Node, tokens: Arc<TokenStore>, budget: Budget) -> TenantGate<S> {
        TenantGate {
            inner,
            shared: Arc::new(TenantShared { node, tokens, budget }),
        }
    }
}

impl<S: NamedService> NamedService for TenantGate<S> {
    const NAME: &'static str = S::NAME;
}

impl TenantShared {
    async fn enter(&self, headers: &http::HeaderMap) -> Result<Access, Status> {
        let state = self.node.state();
        let Some(engine) = state.primary() else {
            return Err(status::not_serving(&state));
        };
        let token = bearer(headers).ok_or_else(unauthenticated)?;
        let (tenant, watch) = self.tokens.verify(state.epoch, engine, &token).await?;
        Ok(Access {
            tenant,
            engine: engine.clone(),
            epoch: state.epoch,
            watch,
            node: self.node.clone(),
            room: Room::default(),
        })
    }
}

/// The token in the one `authorization: Bearer` header.
fn bearer(headers: &http::HeaderMap) -> Option<Token> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let (value, more) = (values.next()?, values.next());
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    (more.is_none() && scheme.eq_ignore_ascii_case("bearer")).then_some(())?;
    Token::parse(token)
}

impl<S> Service<Request> for TenantGate<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The ready one goes, a fresh clone stays (tower's rule).
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let shared = self.shared.clone();
        Box::pin(async move {
            match shared.enter(request.headers()).await {
                Err(status) => Ok(status.into_http()),
                Ok(mut access) => {
                    let (parts, body) = request.into_parts();
                    let (body, room) = shared.budget.limit(body);
                    access.room = room;
                    let epoch = access.epoch.0;
                    let mut request = http::Request::from_parts(parts, body);
                    request.headers_mut().remove(http::header::AUTHORIZATION);
                    request.extensions_mut().insert(access);
                    let mut response = inner.call(request).await?;
                    response.headers_mut().insert(EPOCH_KEY, epoch.into());
                    Ok(response)
                }
            }
        })
    }
}

/// Lets administrators' connections through to `S`.
#[derive(Clone)]
pub struct AdminGate<S> {
    inner: S,
    /// Plaintext on loopback, by configuration: everyone here is an administrator.
    insecure: bool,
}

impl<S> AdminGate<S> {
    /// Before `inner`.
    pub fn new(inner: S, insecure: bool) -> AdminGate<S> {
        AdminGate { inner, insecure }
    }

    fn admits(&self, request: &Request) -> bool {
        self.insecure
            || request
                .extensions()
                .get::<Peer>()
                .is_some_and(|peer| peer.roles.contains(&Role::Admin))
    }
}

impl<S: NamedService> NamedService for AdminGate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request> for AdminGate<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if !self.admits(&request) {
            let denied = status::status(
                Kind::PermissionDenied,
                "the certificate does not carry the role admin",
            );
            return Box::pin(async move { Ok(denied.into_http()) });
        }
        Box::pin(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn leaf(names: &[SanType]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn certificate_with_role_uris_then_exactly_these() {
        let dns = SanType::DnsName("strongroom://role/admin".try_into().unwrap());
        assert_eq!(roles(&leaf(&[uri("strongroom://role/admin")])), [Role::Admin]);
        assert_eq!(roles(&leaf(&[uri("strongroom://role/replica")])), [Role::Replica]);
        assert_eq!(
            roles(&leaf(&[
                uri("strongroom://role/admin2"),
                uri("strongroom://role/")
            ])),
            []
        );
        assert_eq!(roles(&leaf(&[uri("STRONGROOM://role/admin"), dns])), []);
        assert_eq!(roles(&leaf(&[])), []);
    }

    #[test]
    fn certificate_cut_or_followed_by_bytes_then_no_role() {
        let good = leaf(&[uri("strongroom://role/admin")]);
        for length in 0..good.len() {
            assert_eq!(roles(&good[..length]), [], "{length}");
        }
        let longer = [&good[..], &[0]].concat();
        assert_eq!(roles(&longer), []);
    }

    #[test]
    fn header_missing_doubled_or_malformed_then_no_token() {
        let good = format!("{}.{}", "0".repeat(16), "1".repeat(64));
        let headers = |values: &[String]| {
            let mut map = http::HeaderMap::new();
            for value in values {
                map.append(http::header::AUTHORIZATION, value.parse().unwrap());
            }
            map
        };
        assert!(bearer(&headers(&[format!("Bearer {good}")])).is_some());
        assert!(bearer(&headers(&[format!("bearer {good}")])).is_some());
        assert!(bearer(&headers(&[])).is_none());
        assert!(bearer(&headers(&[format!("Bearer {good}"), format!("Bearer {good}")])).is_none());
        assert!(bearer(&headers(&[format!("Basic {good}")])).is_none());
        assert!(bearer(&headers(std::slice::from_ref(&good))).is_none());
        assert!(bearer(&headers(&[format!("Bearer {good}0")])).is_none());
        assert!(bearer(&headers(&[format!("Bearer {}", good.replace('.', ":"))])).is_none());
    }
}
