//! `wasi:keyvalue@0.2.0-draft`: `store`, `atomics` and `batch`, over the buckets of the grant.

use crate::bindings::keyvalue::{atomics, batch, store};
use crate::kv::{BATCH_LEN_MAX, Bucket, KvError, Operation};
use crate::state::GuestState;
use redan_policy::grant::Bucket as Quota;
use redan_protocol::Code;
use std::sync::Arc;
use wasmtime::Result;
use wasmtime::component::Resource;

/// An open bucket of one call.
pub struct Handle {
    bucket: Arc<Bucket>,
    quota: Arc<Quota>,
}

type Answer<T> = Result<std::result::Result<T, store::Error>>;

impl GuestState {
    /// The bucket behind a handle, for so many operations: more than its rate admits are refused.
    fn bucket(&self, handle: &Resource<Handle>, operations: usize) -> Answer<(Arc<Bucket>, Arc<Quota>)> {
        let handle = self.table.get(handle)?;
        if !handle.bucket.admits(&handle.quota, operations) {
            return Ok(Err(self.refuse(Code::KvQuota)));
        }
        Ok(Ok((Arc::clone(&handle.bucket), Arc::clone(&handle.quota))))
    }

    /// Denies with a code, which is also all that the guest is told.
    fn refuse(&self, code: Code) -> store::Error {
        self.verdict.deny(code);
        store::Error::Other(code.name().to_owned())
    }

    /// Runs what touches the disk away from the threads that serve other calls.
    async fn on_disk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> std::result::Result<T, KvError> + Send + 'static,
    ) -> Answer<T> {
        let done = tokio::task::spawn_blocking(work).await;
        Ok(match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if matches!(error, KvError::NotANumber) {
                    Err(store::Error::Other(error.code().name().to_owned()))
                } else {
                    Err(self.refuse(error.code()))
                }
            }
            Err(_) => Err(store::Error::Other("internal".to_owned())),
        })
    }
}

impl store::Host for GuestState {
    async fn open(&mut self, identifier: String) -> Answer<Resource<Handle>> {
        let Some((bucket, quota)) = self.capabilities.bucket(&identifier) else {
            return Ok(Err(store::Error::NoSuchStore));
        };
        Ok(Ok(self.table.push(Handle { bucket, quota })?))
    }
}

impl store::HostBucket for GuestState {
    async fn get(&mut self, handle: Resource<Handle>, key: String) -> Answer<Option<Vec<u8>>> {
        Ok(self.bucket(&handle, 1)?.map(|(bucket, _)| bucket.get(&key)))
    }

    async fn set(&mut self, handle: Resource<Handle>, key: String, value: Vec<u8>) -> Answer<()> {
        let (bucket, quota) = match self.bucket(&handle, 1)? {
            Ok(bucket) => bucket,
            Err(error) => return Ok(Err(error)),
        };
        let change = vec![Operation::Set(key, value)];
        self.on_disk(move || bucket.change(&quota, change)).await
    }

    async fn delete(&mut self, handle: Resource<Handle>, key: String) -> Answer<()> {
        let (bucket, quota) = match self.bucket(&handle, 1)? {
            Ok(bucket) => bucket,
            Err(error) => return Ok(Err(error)),
        };
        let change = vec![Operation::Delete(key)];
        self.on_disk(move || bucket.change(&quota, change)).await
    }

    async fn exists(&mut self, handle: Resource<Handle>, key: String) -> Answer<bool> {
        Ok(self.bucket(&handle, 1)?.map(|(bucket, _)| bucket.exists(&key)))
    }

    async fn list_keys(
        &mut self,
        handle: Resource<Handle>,
        cursor: Option<u64>,
    ) -> Answer<store::KeyResponse> {
        Ok(self.bucket(&handle, 1)?.map(|(bucket, _)| {
            let (keys, cursor) = bucket.keys(cursor.unwrap_or(0));
            store::KeyResponse { keys, cursor }
        }))
    }

    async fn drop(&mut self, handle: Resource<Handle>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl atomics::Host for GuestState {
    async fn increment(&mut self, handle: Resource<Handle>, key: String, delta: u64) -> Answer<u64> {
        let (bucket, quota) = match self.bucket(&handle, 1)? {
            Ok(bucket) => bucket,
            Err(error) => return Ok(Err(error)),
        };
        self.on_disk(move || bucket.increment(&quota, key, delta)).await
    }
}

impl batch::Host for GuestState {
    async fn get_many(
        &mut self,
        handle: Resource<Handle>,
        keys: Vec<String>,
    ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        let (bucket, _) = match self.bucket(&handle, keys.len())? {
            Ok(bucket) => bucket,
            Err(error) => return Ok(Err(error)),
        };
        if keys.len() > BATCH_LEN_MAX {
            return Ok(Err(self.refuse(KvError::Quota.code())));
        }
        // One key named a thousand times is a thousand copies in this process: what goes to the guest in one call is
        // bounded like what comes from it.
        let most = self.capabilities.grant().limits.hostcall_bytes.get();
        let (mut found, mut bytes) = (Vec::new(), 0_u64);
        for key in keys {
            let pair = bucket.get(&key).map(|value| (key, value));
            let length = pair
                .as_ref()
                .map_or(0, |(key, value)| key.len().saturating_add(value.len()));
            bytes = bytes.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            if bytes > most {
                return Ok(Err(self.refuse(Code::HostcallLimit)));
            }
            found.push(pair);
        }
        Ok(Ok(found))
    }

    async fn set_many(&mut self, handle: Resource<Handle>, pairs: Vec<(String, Vec<u8>)>) -> Answer<()> {
        let (bucket, quota) = match self.bucket(&handle, pairs.len())? {
            Ok(bucket) => bucket,
            Err(error) => return Ok(Err(error)),
        };
        let changes = pairs
            .into_iter()
            .map(|(key, value)| Operation::Set(key, value))
            .collect();
        self.on_disk(move || bucket.change(&quota, changes)).await
    }

    async fn delete_many(&mut self, handle: Resource<Handle>, keys: Vec<String>) -> Answer<()> {
        let (bucket, quota) = match self.bucket(&handle, keys.len())? {
            Ok(bucket) => bucket,
            Err(error) => return Ok(Err(error)),
        };
        let changes = keys.into_iter().map(Operation::Delete).collect();
        self.on_disk(move || bucket.change(&quota, changes)).await
    }
}
