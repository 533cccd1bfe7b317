//! The commands, one function each (TPM 2.0 Library, Part 3). Handles live as long as the closure they are given to.

use crate::error::{ResponseCode, TpmError};
use crate::name::{Address, Blob};
use crate::template;
use crate::transport::{ANSWER_WITHIN, Connection};
use crate::wire::{Answer, Command, Parameters, Reader, Wrong};
use redan_protocol::Digest;
use std::time::Duration;
use zeroize::Zeroizing;

/// `TPM_RH_OWNER`.
const OWNER: u32 = 0x4000_0001;
/// `TPM_RH_NULL`.
const NULL_HIERARCHY: u32 = 0x4000_0007;
/// `TPM_ST_HASHCHECK`.
const HASHCHECK: u16 = 0x8024;

/// How often a command is sent that is answered with "again". Tripped by `a_tpm_that_is_always_busy_is_given_up`.
const TRIES_MAX: u32 = 9;
/// First wait between two of them; doubles: about five seconds in all.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Data in one answer, bytes: `MAX_SYM_DATA` is 128, and a counter has 8.
pub(crate) const DATA_LEN_MAX: usize = 128;

/// A TPM that is being talked to.
pub(crate) struct Client {
    connection: Connection,
    again_after: Duration,
}

/// A key or secret fresh from the TPM: `TPMT_PUBLIC`, and what is in `TPM2B_PRIVATE`.
pub(crate) struct Made {
    pub(crate) public: Vec<u8>,
    pub(crate) private: Vec<u8>,
}

/// What is said of an index (`TPMS_NV_PUBLIC`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Index {
    pub(crate) number: u32,
    pub(crate) algorithm: u16,
    pub(crate) attributes: u32,
    pub(crate) length: u16,
}

impl Client {
    pub(crate) fn open(address: &Address) -> Result<Self, TpmError> {
        Self::open_with(address, ANSWER_WITHIN, AGAIN_AFTER)
    }

    pub(crate) fn open_with(
        address: &Address,
        within: Duration,
        again_after: Duration,
    ) -> Result<Self, TpmError> {
        Ok(Self {
            connection: Connection::open(address, within)?,
            again_after,
        })
    }

    fn run<T>(
        &mut self,
        command: &Command,
        read: impl Fn(Answer<'_>) -> Result<T, Wrong>,
    ) -> Result<T, TpmError> {
        let bytes = command.encode();
        let (path, name) = (self.connection.path().to_owned(), command.name);
        let mut wait = self.again_after;
        let mut last = ResponseCode::RETRY;
        for turn in 0..TRIES_MAX {
            if turn > 0 {
                std::thread::sleep(wait);
                wait = wait.saturating_mul(2);
            }
            let answer = self.connection.exchange(name, &bytes)?;
            match command.read(&answer).and_then(&read) {
                Ok(read) => return Ok(read),
                Err(Wrong::Code(answer)) if answer.passes() => last = answer,
                Err(wrong) => return Err(failed(path, name, wrong)),
            }
        }
        Err(TpmError::Busy {
            path,
            command: name,
            answer: last,
        })
    }

    /// What runs under the storage key.
    pub(crate) fn under_primary<T>(
        &mut self,
        run: impl FnOnce(&mut Self, u32) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let primary = self.run(&create_primary(), created_primary)?;
        let done = run(self, primary);
        self.flush(primary);
        done
    }

    /// What runs with a blob of this TPM loaded.
    pub(crate) fn with<T>(
        &mut self,
        blob: &Blob,
        run: impl FnOnce(&mut Self, u32) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        self.under_primary(|tpm, primary| {
            let name = Digest::of(&blob.public);
            let loaded = tpm.run(&load(primary, &blob.private, &blob.public), |answer| {
                loaded(answer, name)
            });
            let loaded = loaded.map_err(|error| match error {
                TpmError::Refused { path, answer, .. } if answer.kind() == ResponseCode::INTEGRITY => {
                    TpmError::Foreign { path }
                }
                other => other,
            })?;
            let done = run(tpm, loaded);
            tpm.flush(loaded);
            done
        })
    }

    /// What is not flushed goes with the connection, behind a resource manager.
    fn flush(&mut self, handle: u32) {
        self.run(&flush_context(handle), nothing).ok();
    }

    pub(crate) fn create(&mut self, parent: u32, template: &[u8], secret: &[u8]) -> Result<Made, TpmError> {
        self.run(&create(parent, template, secret), created)
    }

    /// R and S, 32 bytes each.
    pub(crate) fn sign(&mut self, key: u32, digest: Digest) -> Result<[u8; 64], TpmError> {
        self.run(&sign(key, digest), signed)
    }

    pub(crate) fn unseal(&mut self, secret: u32) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.run(&unseal(secret), data)
    }

    pub(crate) fn nv_public(&mut self, index: u32) -> Result<Index, TpmError> {
        self.run(&nv_read_public(index), nv_public)
    }

    pub(crate) fn nv_define(&mut self, public: Index) -> Result<(), TpmError> {
        self.run(&nv_define_space(public), nothing)
    }

    pub(crate) fn nv_undefine(&mut self, index: u32) -> Result<(), TpmError> {
        self.run(&nv_undefine_space(index), nothing)
    }

    pub(crate) fn nv_increment(&mut self, index: u32) -> Result<(), TpmError> {
        self.run(&nv_increment(index), nothing)
    }

    pub(crate) fn nv_read_counter(&mut self, index: u32) -> Result<u64, TpmError> {
        self.run(&nv_read(index), counted)
    }
}

fn failed(path: String, command: &'static str, wrong: Wrong) -> TpmError {
    match wrong {
        Wrong::Form(what) => TpmError::Nonsense { path, command, what },
        Wrong::Code(answer) => match answer.kind() {
            ResponseCode::LOCKOUT => TpmError::Locked { path },
            ResponseCode::AUTH_FAIL | ResponseCode::BAD_AUTH => TpmError::Owner { path, command },
            _ => TpmError::Refused {
                path,
                command,
                answer,
            },
        },
    }
}

/// §24.1, with the template of a storage key.
fn create_primary() -> Command {
    Command {
        name: "TPM2_CreatePrimary",
        code: 0x131,
        handles: vec![OWNER],
        authorised: true,
        parameters: creation(&template::primary(), &[]),
        gives_handle: true,
    }
}

fn created_primary(answer: Answer<'_>) -> Result<u32, Wrong> {
    let mut rest = answer.parameters;
    rest.sized()?;
    creation_proof(&mut rest)?;
    rest.sized()?;
    rest.end()?;
    Ok(answer.handle)
}

/// §12.1.
fn create(parent: u32, template: &[u8], secret: &[u8]) -> Command {
    Command {
        name: "TPM2_Create",
        code: 0x153,
        handles: vec![parent],
        authorised: true,
        parameters: creation(template, secret),
        gives_handle: false,
    }
}

fn created(answer: Answer<'_>) -> Result<Made, Wrong> {
    let mut rest = answer.parameters;
    let (private, public) = (rest.sized()?.to_vec(), rest.sized()?.to_vec());
    creation_proof(&mut rest)?;
    rest.end()?;
    Ok(Made { public, private })
}

/// `TPM2B_SENSITIVE_CREATE` without a password, the template, nothing from outside, no PCRs.
fn creation(template: &[u8], secret: &[u8]) -> Parameters {
    let mut sensitive = Parameters::default();
    sensitive.sized(&[]);
    sensitive.sized(secret);
    let mut out = Parameters::default();
    out.sized(&sensitive.0);
    out.sized(template);
    out.sized(&[]);
    out.u32(0);
    out
}

/// Creation data, their hash and a `TPMT_TK_CREATION`: nobody here certifies a creation.
fn creation_proof(rest: &mut Reader<'_>) -> Result<(), Wrong> {
    rest.sized()?;
    rest.sized()?;
    rest.u16()?;
    rest.u32()?;
    rest.sized()?;
    Ok(())
}

/// §12.2.
fn load(parent: u32, private: &[u8], public: &[u8]) -> Command {
    let mut parameters = Parameters::default();
    parameters.sized(private);
    parameters.sized(public);
    Command {
        name: "TPM2_Load",
        code: 0x157,
        handles: vec![parent],
        authorised: true,
        parameters,
        gives_handle: true,
    }
}

/// The name is that of the public half that was sent (Part 1, 16).
fn loaded(answer: Answer<'_>, digest: Digest) -> Result<u32, Wrong> {
    let mut rest = answer.parameters;
    let mut name = Reader(rest.sized()?);
    if name.u16()? != template::SHA256 || name.0 != digest.as_bytes() {
        return Err(Wrong::Form("it loaded something else"));
    }
    rest.end()?;
    Ok(answer.handle)
}

/// §20.2: a digest made here, with the key's own scheme.
fn sign(key: u32, digest: Digest) -> Command {
    let mut parameters = Parameters::default();
    parameters.sized(digest.as_bytes());
    parameters.u16(template::NULL);
    parameters.u16(HASHCHECK);
    parameters.u32(NULL_HIERARCHY);
    parameters.sized(&[]);
    Command {
        name: "TPM2_Sign",
        code: 0x15d,
        handles: vec![key],
        authorised: true,
        parameters,
        gives_handle: false,
    }
}

fn signed(answer: Answer<'_>) -> Result<[u8; 64], Wrong> {
    let mut rest = answer.parameters;
    if rest.u16()? != template::ECDSA || rest.u16()? != template::SHA256 {
        return Err(Wrong::Form("it is a signature of another kind"));
    }
    let mut signature = [0; 64];
    for part in signature.chunks_exact_mut(32) {
        template::number(&mut rest, part)?;
    }
    rest.end()?;
    Ok(signature)
}

/// §12.7.
fn unseal(secret: u32) -> Command {
    Command {
        name: "TPM2_Unseal",
        code: 0x15e,
        handles: vec![secret],
        authorised: true,
        parameters: Parameters::default(),
        gives_handle: false,
    }
}

fn data(answer: Answer<'_>) -> Result<Zeroizing<Vec<u8>>, Wrong> {
    let mut rest = answer.parameters;
    let data = rest.sized()?;
    rest.end()?;
    if data.len() > DATA_LEN_MAX {
        return Err(Wrong::Form("it is longer than anything sealed"));
    }
    Ok(Zeroizing::new(data.to_vec()))
}

/// §28.4: its handle is a parameter.
fn flush_context(handle: u32) -> Command {
    let mut parameters = Parameters::default();
    parameters.u32(handle);
    Command {
        name: "TPM2_FlushContext",
        code: 0x165,
        handles: Vec::new(),
        authorised: false,
        parameters,
        gives_handle: false,
    }
}

/// §31.6.
fn nv_read_public(index: u32) -> Command {
    Command {
        name: "TPM2_NV_ReadPublic",
        code: 0x169,
        handles: vec![index],
        authorised: false,
        parameters: Parameters::default(),
        gives_handle: false,
    }
}

fn nv_public(answer: Answer<'_>) -> Result<Index, Wrong> {
    let mut rest = answer.parameters;
    let mut public = Reader(rest.sized()?);
    rest.sized()?;
    rest.end()?;
    let (number, algorithm, attributes) = (public.u32()?, public.u16()?, public.u32()?);
    public.sized()?;
    let length = public.u16()?;
    public.end()?;
    Ok(Index {
        number,
        algorithm,
        attributes,
        length,
    })
}

/// §31.3: without a password.
fn nv_define_space(of: Index) -> Command {
    let mut public = Parameters::default();
    public.u32(of.number);
    public.u16(of.algorithm);
    public.u32(of.attributes);
    public.sized(&[]);
    public.u16(of.length);
    let mut parameters = Parameters::default();
    parameters.sized(&[]);
    parameters.sized(&public.0);
    Command {
        name: "TPM2_NV_DefineSpace",
        code: 0x12a,
        handles: vec![OWNER],
        authorised: true,
        parameters,
        gives_handle: false,
    }
}

/// §31.4.
fn nv_undefine_space(index: u32) -> Command {
    Command {
        name: "TPM2_NV_UndefineSpace",
        code: 0x122,
        handles: vec![OWNER, index],
        authorised: true,
        parameters: Parameters::default(),
        gives_handle: false,
    }
}

/// §31.8.
fn nv_increment(index: u32) -> Command {
    Command {
        name: "TPM2_NV_Increment",
        code: 0x134,
        handles: vec![index, index],
        authorised: true,
        parameters: Parameters::default(),
        gives_handle: false,
    }
}

/// §31.13: the eight bytes of a counter.
fn nv_read(index: u32) -> Command {
    let mut parameters = Parameters::default();
    parameters.u16(8);
    parameters.u16(0);
    Command {
        name: "TPM2_NV_Read",
        code: 0x14e,
        handles: vec![index, index],
        authorised: true,
        parameters,
        gives_handle: false,
    }
}

fn counted(answer: Answer<'_>) -> Result<u64, Wrong> {
    let mut rest = answer.parameters;
    let mut counter = Reader(rest.sized()?);
    rest.end()?;
    let count = counter.u64()?;
    counter.end()?;
    Ok(count)
}

fn nothing(answer: Answer<'_>) -> Result<(), Wrong> {
    answer.parameters.end()
}

#[cfg(test)]
mod tests;
