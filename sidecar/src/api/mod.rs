//! SQL over HTTP: `POST /sql`.
//!
//! The body is SQL, several statements allowed, run as one transaction. It is answered with JSON, errors included; whoever
//! asks gets an answer whatever was sent. Statements run on connections of their own, behind an allow-list ([`guard`]), and
//! never on the async runtime's threads.

mod access;
mod exec;
mod guard;
mod listen;
mod patient;
mod pool;
mod unread;

pub use access::Access;
pub use pool::{OpenConnection, Pool};

use crate::limits::{BODY_TIMEOUT, MAX_BODY, MAX_REQUESTS};
use axum::body::{to_bytes, Body};
use axum::extract::{Request, State};
use axum::http::{header, HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::Router;
use exec::{Outcome, Refusal};
use listen::Patience;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{watch, Semaphore};
use tokio::task::JoinHandle;
use unread::Room;

/// What the HTTP server works with.
#[derive(Debug)]
struct Api {
    pool: Arc<Pool>,
    access: Access,
    requests: Semaphore,
    unread: Room,
    /// A request's body must be there within.
    patience: Duration,
}

/// Serves until `stop` says so, then finishes the requests under way.
pub async fn serve(listener: TcpListener, pool: Arc<Pool>, access: Access, stop: watch::Receiver<bool>) {
    let requests = Semaphore::new(MAX_REQUESTS);
    let api = Api { pool, access, requests, unread: Room::default(), patience: BODY_TIMEOUT };
    serve_api(listener, api, stop, Patience::default()).await;
}

/// As [`serve`], while there is no database: whoever asks is told so.
pub async fn refuse(listener: TcpListener, stop: watch::Receiver<bool>) {
    let why = "the database is not there, or cannot be opened; the node waits for it, and its log says more";
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why).to_json();
    let router =
        Router::new().fallback(move || std::future::ready(reply(StatusCode::SERVICE_UNAVAILABLE, refusal.clone())));
    listen::serve(listener, router, stop, Patience::default()).await;
}

/// Waits for a server that was told to stop, and ends it if that takes longer.
pub async fn end(serving: JoinHandle<()>, patience: Duration) {
    let abort = serving.abort_handle();
    if tokio::time::timeout(patience, serving).await.is_err() {
        abort.abort();
    }
}

async fn serve_api(listener: TcpListener, api: Api, stop: watch::Receiver<bool>, patience: Patience) {
    let router = Router::new().fallback(answer).with_state(Arc::new(api));
    listen::serve(listener, router, stop, patience).await;
}

/// Binds the HTTP listener.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(addr: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn answer(State(api): State<Arc<Api>>, request: Request) -> Response {
    match handle(&api, request).await {
        Ok(outcome) => match api.unread.hold(outcome.json) {
            Some(unread) => reply(StatusCode::OK, Body::new(unread)),
            None => {
                reply(StatusCode::SERVICE_UNAVAILABLE, Refusal::new(StatusCode::SERVICE_UNAVAILABLE, NO_ROOM).to_json())
            }
        },
        Err(refusal) => {
            let mut response = reply(refusal.status, refusal.to_json());
            if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            if refusal.status == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

const NO_ROOM: &str =
    "the statements were run, but too much of other clients' answers waits to be read to answer with this much; \
                       ask again for less, or later";

fn reply(status: StatusCode, json: impl Into<Body>) -> Response {
    let mut response = Response::new(json.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn handle(api: &Api, request: Request) -> Result<Outcome, Refusal> {
    let _slot = api
        .requests
        .try_acquire()
        .map_err(|_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once; try again"))?;
    api.access.check(request.headers(), request.uri())?;
    if request.uri().path() != "/sql" {
        let message = format!("there is nothing at {}; POST SQL to /sql", request.uri().path());
        return Err(Refusal::new(StatusCode::NOT_FOUND, message));
    }
    if request.method() != Method::POST {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "/sql takes POST only"));
    }
    content_type(request.headers().get(header::CONTENT_TYPE))?;
    let sql = read_sql(request.into_body(), api.patience).await?;
    api.pool.run(sql).await
}

async fn read_sql(body: Body, patience: Duration) -> Result<String, Refusal> {
    let body = tokio::time::timeout(patience, to_bytes(body, MAX_BODY)).await;
    let body = body.map_err(|_| {
        let message = format!("the body was not there within {} s", patience.as_secs());
        Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
    })?;
    let sql = String::from_utf8(body.map_err(|e| body_refusal(&e))?.into())
        .map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, format!("the SQL is not UTF-8: {e}")))?;
    // SQLite takes it for the end of the text: what follows would be left out without a word.
    if let Some(at) = sql.find('\0') {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("the SQL holds a NUL character at position {at}")));
    }
    Ok(sql)
}

fn content_type(value: Option<&HeaderValue>) -> Result<(), Refusal> {
    let text = value.and_then(|v| v.to_str().ok()).unwrap_or("");
    let mut fields = text.split(';').map(str::trim);
    let sql = fields.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/sql"));
    let utf8 = fields.all(|f| f.eq_ignore_ascii_case("charset=utf-8") || f.is_empty());
    if sql && utf8 {
        return Ok(());
    }
    let message = "the Content-Type must be application/sql, in UTF-8";
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

fn body_refusal(e: &axum::Error) -> Refusal {
    let mut source: Option<&dyn std::error::Error> = Some(e);
    while let Some(error) = source {
        if error.to_string().contains("length limit exceeded") {
            let message = format!("the body is larger than {MAX_BODY} bytes");
            return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message);
        }
        source = error.source();
    }
    Refusal::new(StatusCode::BAD_REQUEST, format!("the body could not be read: {e}"))
}

impl Refusal {
    fn to_json(&self) -> String {
        match &self.place {
            None => json!({ "error": self.message }),
            Some(place) => {
                json!({ "error": self.message, "position": place.offset, "line": place.line, "column": place.column })
            }
        }
        .to_string()
    }
}

#[cfg(test)]
mod tests;
