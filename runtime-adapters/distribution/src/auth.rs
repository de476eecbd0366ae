//! Basic and Bearer authorisation: what a registry's challenge asks for, and how to get it.

use base64::Engine as _;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Uri};
use wavetank_port::Credentials;

use crate::error::Result;
use crate::transport::{Transport, malformed};

/// The largest answer of a token service that is read, in bytes. Real tokens have a few KiB.
const TOKEN_BYTES_MAX: u64 = 256 << 10;

/// What a registry wants to see before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Challenge {
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
    Basic,
}

/// The `Authorization` header that satisfies the challenge in `headers`, the answer to a request
/// about `repository`. `None` if there is nothing we could say: no challenge that we know, or one
/// for a password that we do not have.
pub(crate) async fn answer(
    transport: &Transport,
    repository: &str,
    headers: &HeaderMap,
    credentials: Option<&Credentials>,
) -> Result<Option<HeaderValue>> {
    match challenge(headers) {
        None => Ok(None),
        Some(Challenge::Basic) => credentials.map(basic).transpose(),
        Some(Challenge::Bearer {
            realm,
            service,
            scope,
        }) => {
            let scope = scope.unwrap_or_else(|| format!("repository:{repository}:pull"));
            let uri = token_uri(&realm, service.as_deref(), &scope)?;
            token(transport, &uri, credentials).await.map(Some)
        }
    }
}

/// The strongest challenge that we can answer: a token says less about us than a password.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let headers = headers.get_all(WWW_AUTHENTICATE).iter();
    let all: Vec<Challenge> = headers
        .filter_map(|value| value.to_str().ok())
        .filter_map(|text| http_auth::parse_challenges(text).ok())
        .flatten()
        .filter_map(|it| parse(&it))
        .collect();
    let bearer = all.iter().find(|it| **it != Challenge::Basic);
    bearer.or(all.first()).cloned()
}

fn parse(challenge: &http_auth::ChallengeRef<'_>) -> Option<Challenge> {
    let parameter = |name: &str| {
        let mut all = challenge.params.iter();
        all.find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_unescaped())
    };
    match challenge.scheme.to_ascii_lowercase().as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope"),
        }),
        _ => None,
    }
}

fn token_uri(realm: &str, service: Option<&str>, scope: &str) -> Result<Uri> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(service) = service {
        query.append_pair("service", service);
    }
    query.append_pair("scope", scope);
    let mark = if realm.contains('?') { '&' } else { '?' };
    format!("{realm}{mark}{}", query.finish())
        .parse()
        .map_err(|_| malformed("token", "the registry's token service has no valid address"))
}

async fn token(
    transport: &Transport,
    uri: &Uri,
    credentials: Option<&Credentials>,
) -> Result<HeaderValue> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let what = "token";
    transport.check_scheme(what, uri)?;
    let authorization = credentials.map(basic).transpose()?;
    let response = transport.get(what, uri, "application/json", authorization.as_ref());
    let response = transport.success(what, response.await?).await?;
    let body = transport.read(what, response.into_body(), TOKEN_BYTES_MAX);
    let answer: Answer = serde_json::from_slice(&body.await?)
        .map_err(|error| malformed(what, format!("not an answer with a token: {error}")))?;
    let token = answer.token.or(answer.access_token);
    let token = token.ok_or_else(|| malformed(what, "an answer without a token"))?;
    secret(&format!("Bearer {token}"))
}

fn basic(credentials: &Credentials) -> Result<HeaderValue> {
    let pair = format!("{}:{}", credentials.user, credentials.password);
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    secret(&format!("Basic {encoded}"))
}

fn secret(text: &str) -> Result<HeaderValue> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| malformed("token", "it is no valid header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use http::header::WWW_AUTHENTICATE;
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::{Challenge, challenge, token_uri};

    fn challenge_of(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(text).ok()?);
        }
        challenge(&headers)
    }

    #[test]
    fn bearer_is_preferred() {
        let bearer = Challenge::Bearer {
            realm: "https://auth.example.org/token".to_owned(),
            service: Some("r.example.org".to_owned()),
            scope: None,
        };
        let text = r#"Bearer realm="https://auth.example.org/token",service="r.example.org""#;
        assert_eq!(challenge_of(&[text]), Some(bearer.clone()));
        assert_eq!(challenge_of(&["Basic realm=\"r\"", text]), Some(bearer));
        assert_eq!(challenge_of(&["Basic realm=\"r\""]), Some(Challenge::Basic));
        assert_eq!(challenge_of(&["Digest realm=\"r\""]), None);
        assert_eq!(challenge_of(&["Bearer service=\"no realm\""]), None);
        assert_eq!(challenge_of(&[]), None);
    }

    #[test]
    fn the_token_is_asked_for_by_scope() {
        let uri = token_uri(
            "https://a.example.org/t?x=1",
            Some("s p"),
            "repository:a/b:pull",
        );
        assert_eq!(
            uri.expect("a valid address").to_string(),
            "https://a.example.org/t?x=1&service=s+p&scope=repository%3Aa%2Fb%3Apull"
        );
        assert!(token_uri("no address at all", None, "").is_err());
    }

    proptest! {
        #[test]
        fn any_challenge_is_read_or_ignored(text in "[ -~]{0,200}") {
            let _ = challenge_of(&[&text]);
        }
    }
}
