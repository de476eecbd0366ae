//! One function per operation.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wavetank_model::{Availability, NodeId, NodeRole, Operation, Outcome, ServiceSpec};
use wavetank_port::WallTime;

use super::manifest::{Lapse, ServiceManifest};
use super::views::{Agent, Done, KeyValue, Mode, Nodes, Service, Services};
use super::{Api, ApiError, logs, watch};

/// A body of JSON, or a refusal in our own words.
#[derive(FromRequest)]
#[from_request(via(Json), rejection(ApiError))]
struct Body<T>(T);

/// What the path names, or a refusal in our own words.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub(super) struct Named<T>(pub T);

type Answer<T> = Result<Json<T>, ApiError>;

/// Longest that a token may be good for.
const TOKEN_LIFETIME_MAX: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

pub(super) fn all() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_services))
        .routes(routes!(get_service, put_service, delete_service))
        .routes(routes!(scale_service))
        .routes(routes!(stop_service))
        .routes(routes!(start_service))
        .routes(routes!(roll_back_service))
        .routes(routes!(list_nodes))
        .routes(routes!(set_availability))
        .routes(routes!(remove_manager))
        .routes(routes!(get_key, put_key))
        .routes(routes!(create_token))
        .routes(routes!(logs::read_logs))
        .routes(routes!(watch::watch))
}

async fn change(api: &Api, operation: Operation) -> Answer<Done> {
    match api.ask(operation).await? {
        Outcome::Done { revision } => Ok(Json(Done {
            revision: revision.0,
        })),
        _ => Err(ApiError::nonsense()),
    }
}

/// All services with their tasks.
pub(super) async fn services(api: &Api) -> Result<Vec<Service>, ApiError> {
    match api.ask(Operation::ListServices).await? {
        Outcome::Services { services } => Ok(services.into_iter().map(Service::from).collect()),
        _ => Err(ApiError::nonsense()),
    }
}

/// All managers and agents.
pub(super) async fn nodes(api: &Api) -> Result<Nodes, ApiError> {
    match api.ask(Operation::ListNodes).await? {
        Outcome::Nodes {
            managers,
            leader,
            joining,
            agents,
        } => Ok(Nodes {
            managers: managers.iter().map(NodeId::to_string).collect(),
            leader: leader.map(|it| it.to_string()),
            joining: joining.iter().map(NodeId::to_string).collect(),
            agents: agents.into_iter().map(Agent::from).collect(),
        }),
        _ => Err(ApiError::nonsense()),
    }
}

#[utoipa::path(get, path = "/services", responses((status = 200, body = Services)))]
async fn list_services(State(api): State<Api>) -> Answer<Services> {
    let services = services(&api).await?;
    Ok(Json(Services { services }))
}

#[utoipa::path(get, path = "/services/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Service)))]
async fn get_service(State(api): State<Api>, Named(name): Named<String>) -> Answer<Service> {
    let service = name.as_str().into();
    match api.ask(Operation::GetService { service }).await? {
        Outcome::Service {
            service: Some(view),
        } => Ok(Json(view.into())),
        Outcome::Service { service: None } => Err(ApiError::not_found(format!(
            "service {name} does not exist"
        ))),
        _ => Err(ApiError::nonsense()),
    }
}

/// Creates the service, or updates it to this spec.
#[utoipa::path(put, path = "/services/{name}", params(("name" = String, Path)),
    request_body = ServiceManifest, responses((status = 200, body = Done)))]
async fn put_service(
    State(api): State<Api>,
    Named(name): Named<String>,
    Body(manifest): Body<ServiceManifest>,
) -> Answer<Done> {
    if manifest.name != name {
        let why = format!("the path names service {name}, the body {}", manifest.name);
        return Err(ApiError::malformed(why));
    }
    let spec = ServiceSpec::try_from(manifest)?;
    change(&api, Operation::Deploy { spec }).await
}

#[utoipa::path(delete, path = "/services/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Done)))]
async fn delete_service(State(api): State<Api>, Named(name): Named<String>) -> Answer<Done> {
    let service = name.as_str().into();
    change(&api, Operation::Delete { service }).await
}

/// A new number of tasks.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// So many.
    pub replicas: u32,
}

#[utoipa::path(post, path = "/services/{name}/scale", params(("name" = String, Path)),
    request_body = Scale, responses((status = 200, body = Done)))]
async fn scale_service(
    State(api): State<Api>,
    Named(name): Named<String>,
    Body(Scale { replicas }): Body<Scale>,
) -> Answer<Done> {
    let service = name.as_str().into();
    change(&api, Operation::Scale { service, replicas }).await
}

/// Stops all tasks and keeps the service.
#[utoipa::path(post, path = "/services/{name}/stop", params(("name" = String, Path)),
    responses((status = 200, body = Done)))]
async fn stop_service(State(api): State<Api>, Named(name): Named<String>) -> Answer<Done> {
    let service = name.as_str().into();
    change(&api, Operation::Stop { service }).await
}

/// Undoes a stop.
#[utoipa::path(post, path = "/services/{name}/start", params(("name" = String, Path)),
    responses((status = 200, body = Done)))]
async fn start_service(State(api): State<Api>, Named(name): Named<String>) -> Answer<Done> {
    let service = name.as_str().into();
    change(&api, Operation::Start { service }).await
}

/// Goes back to the last completed generation.
#[utoipa::path(post, path = "/services/{name}/rollback", params(("name" = String, Path)),
    responses((status = 200, body = Done)))]
async fn roll_back_service(State(api): State<Api>, Named(name): Named<String>) -> Answer<Done> {
    let service = name.as_str().into();
    change(&api, Operation::Rollback { service }).await
}

#[utoipa::path(get, path = "/nodes", responses((status = 200, body = Nodes)))]
async fn list_nodes(State(api): State<Api>) -> Answer<Nodes> {
    Ok(Json(nodes(&api).await?))
}

/// What may run on a node from now on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetAvailability {
    /// The new mode.
    pub availability: Mode,
}

#[utoipa::path(put, path = "/nodes/{node}/availability", params(("node" = String, Path)),
    request_body = SetAvailability, responses((status = 200, body = Done)))]
async fn set_availability(
    State(api): State<Api>,
    Named(node): Named<String>,
    Body(body): Body<SetAvailability>,
) -> Answer<Done> {
    let node = node_id(&node)?;
    let availability = match body.availability {
        Mode::Active => Availability::Active,
        Mode::Pause => Availability::Pause,
        Mode::Drain => Availability::Drain,
    };
    change(&api, Operation::SetAvailability { node, availability }).await
}

/// Puts a manager out of the consensus group for good.
#[utoipa::path(delete, path = "/nodes/{node}", params(("node" = String, Path)),
    responses((status = 200, body = Done)))]
async fn remove_manager(State(api): State<Api>, Named(node): Named<String>) -> Answer<Done> {
    let node = node_id(&node)?;
    change(&api, Operation::RemoveManager { node }).await
}

fn node_id(text: &str) -> Result<NodeId, ApiError> {
    text.parse()
        .map_err(|error: wavetank_model::ids::ParseIdError| ApiError::malformed(error.to_string()))
}

#[utoipa::path(get, path = "/keys/{*key}", params(("key" = String, Path)),
    responses((status = 200, body = KeyValue)))]
async fn get_key(State(api): State<Api>, Named(key): Named<String>) -> Answer<KeyValue> {
    match api.ask(Operation::Get { key }).await? {
        Outcome::Value { value } => Ok(Json(KeyValue { value })),
        _ => Err(ApiError::nonsense()),
    }
}

#[utoipa::path(put, path = "/keys/{*key}", params(("key" = String, Path)),
    request_body = KeyValue, responses((status = 200, body = Done)))]
async fn put_key(
    State(api): State<Api>,
    Named(key): Named<String>,
    Body(body): Body<KeyValue>,
) -> Answer<Done> {
    let Some(value) = body.value else {
        return Err(ApiError::malformed(
            "a key cannot be unwritten: `value` is null",
        ));
    };
    let claim = None;
    change(&api, Operation::Put { key, value, claim }).await
}

/// Whom to let in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What the bearer becomes: `manager`, `agent` or `client`.
    #[schema(value_type = String, example = "agent")]
    pub role: NodeRole,
    /// How long it is good for, 30 days at most.
    pub lifetime: Lapse,
}

/// A new token. It is shown once and kept nowhere.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// What the new node is started with.
    pub token: String,
}

#[utoipa::path(post, path = "/tokens", request_body = CreateToken,
    responses((status = 200, body = CreatedToken)))]
async fn create_token(
    State(api): State<Api>,
    Body(CreateToken { role, lifetime }): Body<CreateToken>,
) -> Answer<CreatedToken> {
    if lifetime.0.is_zero() || lifetime.0 > TOKEN_LIFETIME_MAX {
        let why = format!("a token is good for up to 30 days, not for {lifetime}");
        return Err(ApiError::malformed(why));
    }
    let token = api.mint.token();
    let nanos = u64::try_from(lifetime.0.as_nanos()).unwrap_or(u64::MAX);
    let operation = Operation::CreateToken {
        digest: token.digest(role),
        role,
        expires: WallTime(api.mint.now().0.saturating_add(nanos)),
    };
    let Json(Done { .. }) = change(&api, operation).await?;
    Ok(Json(CreatedToken {
        token: token.reveal(),
    }))
}
