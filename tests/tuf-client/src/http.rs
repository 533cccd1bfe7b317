//! One plain HTTP request, bounded in length and time.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use redan_protocol::ByteCount;
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest time for one request; the suite serves from the same machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came.
pub(crate) enum Fetched {
    /// The whole body, at most as long as was allowed.
    Body(Vec<u8>),
    /// The server says that it does not exist.
    NotFound,
    /// Anything else.
    Failed,
}

/// Gets `http://…`, at most `limit` long.
pub(crate) async fn get(url: &str, limit: ByteCount) -> Fetched {
    match tokio::time::timeout(PATIENCE, request(url, limit)).await {
        Ok(Some(fetched)) => fetched,
        Ok(None) | Err(_) => Fetched::Failed,
    }
}

async fn request(url: &str, limit: ByteCount) -> Option<Fetched> {
    let url: Uri = url.parse().ok()?;
    let authority = url.authority().filter(|_| url.scheme_str() == Some("http"))?;
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80)))
        .await
        .ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::get(url.path_and_query()?.as_str())
        .header("host", authority.as_str())
        .body(Empty::<bytes::Bytes>::new())
        .ok()?;
    let response = sender.send_request(request).await.ok()?;
    let fetched = match response.status() {
        StatusCode::OK => {
            let limit = usize::try_from(limit.get()).ok()?;
            let body = Limited::new(response.into_body(), limit).collect().await.ok()?;
            Fetched::Body(body.to_bytes().to_vec())
        }
        StatusCode::NOT_FOUND => Fetched::NotFound,
        _ => Fetched::Failed,
    };
    connection.abort();
    Some(fetched)
}
