//! Artifacts by digest: stored when their bytes have it, served in ranges. Believes nothing, and nobody has to believe it: the
//! device hashes every byte again.

use crate::error::{Refused, StoreError};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutPayload};
use redan_protocol::{Code, Digest};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A fleet's artifacts.
#[derive(Clone, Debug)]
pub struct Artifacts {
    store: Arc<dyn ObjectStore>,
}

impl Artifacts {
    /// In a folder.
    pub fn local(folder: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            store: Arc::new(LocalFileSystem::new_with_prefix(folder)?),
        })
    }

    fn path(digest: Digest) -> StorePath {
        StorePath::from(digest.to_string())
    }

    /// Stores bytes that have the digest.
    pub async fn put(&self, digest: Digest, bytes: Bytes) -> Result<(), Refused> {
        if Digest::of(&bytes) != digest {
            return Err(Refused::because(
                Code::DigestMismatch,
                "the bytes do not have the digest of the path",
            ));
        }
        self.store
            .put(&Self::path(digest), PutPayload::from_bytes(bytes))
            .await
            .map_err(StoreError::from)?;
        Ok(())
    }

    /// Everything that is there, with its length.
    pub async fn all(&self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        let listed = self.store.list_with_delimiter(None).await?;
        let named = listed.objects.into_iter().filter_map(|meta| {
            let digest = Digest::parse(meta.location.filename()?).ok()?;
            Some((digest, meta.size))
        });
        Ok(named.collect())
    }

    /// Whether it is there, and how long.
    pub async fn length(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        match self.store.head(&Self::path(digest)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All of it, for documents the server itself reads.
    pub async fn get(&self, digest: Digest) -> Result<Option<Bytes>, StoreError> {
        match self.store.get(&Self::path(digest)).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Answers `GET`, with one range if one is asked for (RFC 9110 §14).
    pub async fn serve(&self, digest: Digest, headers: &HeaderMap) -> Result<Response<Body>, Refused> {
        let Some(length) = self.length(digest).await? else {
            return Err(Refused::plain(Code::ArtifactMissing));
        };
        let etag = format!("\"{digest}\"");
        let range = match headers.get(header::RANGE) {
            // A range of another version is no range (RFC 9110 §13.1.5).
            Some(_)
                if headers
                    .get(header::IF_RANGE)
                    .is_some_and(|tag| tag.as_bytes() != etag.as_bytes()) =>
            {
                None
            }
            Some(value) => match parse_range(value, length) {
                Some(range) => Some(range),
                None => return Ok(unsatisfiable(length)),
            },
            None => None,
        };
        let options = GetOptions {
            range: range.clone().map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let found = self
            .store
            .get_opts(&Self::path(digest), options)
            .await
            .map_err(StoreError::from)?;
        let mut answer = Response::builder()
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::ETAG, etag)
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::CACHE_CONTROL, "no-store");
        let (status, body_length) = match &range {
            Some(range) => {
                let last = range.end.saturating_sub(1);
                answer = answer.header(
                    header::CONTENT_RANGE,
                    format!("bytes {}-{last}/{length}", range.start),
                );
                (StatusCode::PARTIAL_CONTENT, range.end.saturating_sub(range.start))
            }
            None => (StatusCode::OK, length),
        };
        answer
            .status(status)
            .header(header::CONTENT_LENGTH, body_length)
            .body(Body::from_stream(found.into_stream()))
            .map_err(|_| Refused::plain(Code::Internal))
    }
}

/// 416 says how long the artifact is (RFC 9110 §15.5.17): a device that has it all learns so.
fn unsatisfiable(length: u64) -> Response<Body> {
    let mut answer = Refused::plain(Code::RangeInvalid).into_response();
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{length}")) {
        answer.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    answer
}

/// `bytes=a-b`, `bytes=a-` or `bytes=-n`; exactly one, within the length.
fn parse_range(value: &HeaderValue, length: u64) -> Option<Range<u64>> {
    let text = value.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let range = match (first, last) {
        ("", suffix) => length.saturating_sub(number(suffix)?)..length,
        (first, "") => number(first)?..length,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(length),
    };
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_range_within_the_artifact_is_served() {
        let range = |text: &'static str| parse_range(&HeaderValue::from_static(text), 100);
        assert_eq!(range("bytes=0-9"), Some(0..10));
        assert_eq!(range("bytes=90-"), Some(90..100));
        assert_eq!(range("bytes=90-1000"), Some(90..100));
        assert_eq!(range("bytes=-10"), Some(90..100));
        for text in [
            "bytes=100-",
            "bytes=9-8",
            "bytes=0-1,3-4",
            "bytes=-0",
            "bytes=-",
            "bytes=a-b",
            "items=0-1",
            "bytes=+1-2",
        ] {
            assert_eq!(range(text), None, "{text}");
        }
    }
}
