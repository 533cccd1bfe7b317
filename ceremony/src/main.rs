//! `redan-ceremony`: the air-gapped key tool.
#![forbid(unsafe_code)]

mod arguments;

use arguments::{Arguments, At, CaTask, Ceremony, Keeping, ListArguments, Making, ProfileArgument, Template};
use clap::Parser as _;
use redan_ceremony::CeremonyError;
use redan_ceremony::assemble::assemble;
use redan_ceremony::authority::{self, Changed};
use redan_ceremony::change::Change;
use redan_ceremony::crl::list;
use redan_ceremony::custody::{self, Custody, Opening};
use redan_ceremony::delegate;
use redan_ceremony::difference::inspect;
use redan_ceremony::found::{Founding, Tokens, found_with};
use redan_ceremony::issue::{Issuing, Whose, issue};
use redan_ceremony::present::{Present, RepositoryName, put_new};
use redan_ceremony::recovery::{self, Answering};
use redan_ceremony::request::Request;
use redan_ceremony::sign::{sign, signer};
use redan_ceremony::transcript::Transcript;
use redan_ceremony::verify::verify;
use redan_identity::TokenUri;
use redan_protocol::authority::Step;
use redan_protocol::{ComponentName, DirectionSequence, FleetId, PublisherName, ReleaseCounter, UnixSeconds};
use redan_publish::{Profile, PublicKey, Signers};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() -> ExitCode {
    // Before anything is read. A kernel without seccomp cannot help; the machine has no network anyway, or it is the wrong one.
    let denied = redan_jail::deny_sockets();
    let outcome = match denied {
        Ok(_) => run(Arguments::parse().command),
        Err(_) => Err(CeremonyError::Bug),
    };
    match outcome {
        Ok(text) => {
            // A closed standard output changes nothing about what was done.
            drop(std::io::stdout().write_all(text.as_bytes()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let text = format!(
                "error: {error}\nbecause: {}\ntry: {}\n",
                error.code(),
                error.remedy()
            );
            drop(std::io::stderr().write_all(text.as_bytes()));
            ExitCode::from(error.exit())
        }
    }
}

/// Makes a revocation list.
fn crl(arguments: ListArguments) -> Result<String, CeremonyError> {
    let (listing, passphrase_file, out) = arguments.listing(now());
    let listed = list(&listing, &Opening::new(passphrase_file.as_slice())?, &out)?;
    let (number, until, out) = (listed.number, listed.until, out.display());
    let certificates = match listed.revoked {
        1 => "1 certificate".to_owned(),
        many => format!("{many} certificates"),
    };
    Ok(format!(
        "Wrote list number {number} with {certificates} to {out}. Publish it with `redan crl publish`; the next one is due before {until}.\n"
    ))
}

/// Does it, and gives what to say.
fn run(command: Ceremony) -> Result<String, CeremonyError> {
    match command {
        Ceremony::Init {
            profile,
            fleet,
            publishers,
            components,
            holders,
            threshold,
            tokens,
            keeping,
            out,
        } => init(
            profile,
            fleet,
            (publishers, components),
            (holders, threshold),
            (&keeping, &tokens),
            &out,
        ),
        Ceremony::Key {
            purpose,
            keeping,
            out,
        } => {
            let (private, public) = custody::make(&purpose, &keep(&keeping, true, 1)?, &out)?;
            let (private, public) = (private.display(), public.display());
            Ok(format!(
                "Wrote {private} for its holder alone, and {public} for a request.\n"
            ))
        }
        Ceremony::TokenKey { uri, present, out } => {
            let public = custody::make_in_token(&uri, present, &Opening::default(), &out)?;
            let (token, public) = (uri.token(), public.display());
            Ok(format!(
                "The key is in token {token}, and stays there. Wrote {public} for a request or a founding.\n"
            ))
        }
        Ceremony::Rewrap {
            key,
            old_passphrase_file,
            keeping,
            out,
        } => {
            let key = Opening::new(old_passphrase_file.as_slice())?.key(&key)?;
            custody::rewrap(&key, &keep(&keeping, true, 1)?, &out)?;
            Ok(format!(
                "Wrote {}. Destroy the old file and its copies.\n",
                out.display()
            ))
        }
        Ceremony::Issue {
            operator,
            device_issuer,
            fleet_dir,
            issuer,
            passphrase_file,
            key,
            out,
        } => {
            let issuing = Issuing {
                key,
                whose: match operator {
                    Some(name) => Whose::Operator(name),
                    None if device_issuer => Whose::DeviceIssuer,
                    None => Whose::Server,
                },
                public: fleet_dir,
                issuer,
                now: now(),
            };
            let (id, expires) = issue(&issuing, &Opening::new(passphrase_file.as_slice())?, &out)?;
            let out = out.display();
            Ok(format!(
                "Wrote key and certificate of {id} to {out}; it ends at {expires}.\n"
            ))
        }
        Ceremony::Crl(arguments) => crl(arguments),
        Ceremony::Request(template) => request(template),
        Ceremony::Ca(task) => ca(task),
        Ceremony::Inspect { at, request } => {
            let request = Request::read(&request)?;
            inspect(&request, &Present::read(&at.public, request.repository)?, now())
        }
        Ceremony::Sign {
            at,
            request,
            key,
            passphrase_file,
            confirm,
            out,
        } => sign_one(&at, &request, &key, passphrase_file.as_slice(), confirm, &out),
        Ceremony::Assemble {
            at,
            request,
            signatures,
        } => assemble_all(&at, &request, &signatures),
        Ceremony::Verify { at } => verify(&at.public, &at.transcript(), now()),
    }
}

fn init(
    profile: ProfileArgument,
    fleet: FleetId,
    (publishers, components): (Vec<PublisherName>, Vec<ComponentName>),
    (holders, threshold): (Option<u32>, Option<u32>),
    (keeping, tokens): (&Keeping, &[(String, TokenUri)]),
    out: &Path,
) -> Result<String, CeremonyError> {
    let (profile, default_holders, default_threshold) = match profile {
        ProfileArgument::Development => (Profile::Development, 1, 1),
        ProfileArgument::Production => (Profile::Production, 3, 2),
    };
    let founding = Founding {
        fleet,
        profile,
        publishers,
        components,
        holders: holders.unwrap_or(default_holders),
        threshold: threshold.unwrap_or(default_threshold),
        now: now(),
    };
    let production = profile == Profile::Production;
    if production && founding.threshold < 2 {
        return Err(CeremonyError::Threshold);
    }
    if production && keeping.plain_keys {
        return Err(CeremonyError::PlainKeys);
    }
    let custody = keep(keeping, production, founding.holders)?;
    let mut brought = Tokens::new();
    for (holder, uri) in tokens {
        let key = Opening::default().signing_token(uri, true)?;
        if brought.insert(holder.clone(), key).is_some() {
            return Err(CeremonyError::NoSuchHolder {
                purpose: holder.clone(),
            });
        }
    }
    found_with(&founding, &custody, brought, out)?;
    Ok(format!(
        "Founded fleet {} in {}.\n  offline/    custodians' keys: move each to its holder's medium\n  online/     \
         for redan-control fleet add\n  public/     roots, first metadata and transcript, for everyone\n  operators/  the first \
         administrator\n",
        founding.fleet,
        out.display()
    ))
}

/// How new keys are kept: plain if that was said, or if nothing was and nothing is wanted.
fn keep(keeping: &Keeping, wanted: bool, holders: u32) -> Result<Custody, CeremonyError> {
    if keeping.plain_keys || (!wanted && keeping.passphrase_files.is_empty()) {
        return Ok(Custody::Plain);
    }
    custody::choose(&keeping.passphrase_files, holders)
}

fn request(template: Template) -> Result<String, CeremonyError> {
    let public = |paths: &[PathBuf]| -> Result<Vec<PublicKey>, CeremonyError> {
        let read: Result<Vec<_>, _> = paths.iter().map(|path| PublicKey::load(path)).collect();
        Ok(read?.into_iter().map(|(key, _)| key).collect())
    };
    let (change, making): (Change, Making) = match template {
        Template::AddHolder {
            role,
            keys,
            threshold,
            making,
        } => {
            let keys = public(&keys)?;
            (
                Change::AddHolder {
                    role,
                    keys,
                    threshold,
                },
                making,
            )
        }
        Template::RemoveHolder {
            role,
            ids,
            threshold,
            making,
        } => (Change::RemoveHolder { role, ids, threshold }, making),
        Template::RevokeOnline { keys, making } => {
            let one = |(role, path): (String, PathBuf)| Ok((role, PublicKey::load(&path)?.0));
            let keys: Result<Vec<_>, CeremonyError> = keys.into_iter().map(one).collect();
            (Change::RevokeOnline { keys: keys? }, making)
        }
        Template::Rotate { role, making } => (Change::Rotate { role }, making),
        Template::Delegate {
            component,
            role: _,
            keys,
            threshold,
            making,
        } => {
            let keys = public(&keys)?;
            let signers = Signers { keys, threshold };
            // Without a component it is the one other role there is.
            let delegation = match component {
                Some(component) => delegate::component(&component, signers),
                None => delegate::direction(signers),
            };
            (Change::Delegate { delegation }, making)
        }
        Template::Snapshot { making } => (Change::Snapshot, making),
        Template::Recover {
            device_request,
            sequence,
            policy_serial,
            timestamp,
            counters,
            making,
        } => {
            let counters = counters.into_iter();
            let answering = Answering {
                asked: recovery::asked(&device_request)?,
                sequence: DirectionSequence::new(sequence),
                policy_serial,
                timestamp,
                committed: counters
                    .map(|(name, counter)| (name, ReleaseCounter::new(counter)))
                    .collect(),
            };
            let present = Present::read(&making.at.public, RepositoryName::Release)?;
            let now = now();
            let request = recovery::request(&answering, &present, now)?;
            return put_request(&request, &present, &making, now);
        }
    };
    let now = now();
    let present = Present::read(&making.at.public, making.repository)?;
    let request = change.request(&present, making.days, now)?;
    put_request(&request, &present, &making, now)
}

fn ca(task: CaTask) -> Result<String, CeremonyError> {
    let (changed, making) = match task {
        CaTask::Make {
            fleet_dir,
            keeping,
            out,
        } => {
            let root = Present::read(&fleet_dir, RepositoryName::Release)?.root(UnixSeconds::new(0))?;
            let production = root.get().profile.as_deref() != Some("development");
            if production && keeping.plain_keys {
                return Err(CeremonyError::PlainKeys);
            }
            let authority = authority::make(&fleet_dir, &keep(&keeping, production, 1)?, &out, now())?;
            let shown = out.display();
            return Ok(format!(
                "Made authority {authority} in {shown}.\n  offline/  its key and issuers: to the holder's medium\n  online/   for the \
                 control server, once it is active\n  ca.pem    for redan-ceremony ca prepare\n"
            ));
        }
        CaTask::Prepare { ca, making } => {
            (Changed::Prepare(authority::read(&making.at.public, &ca)?), making)
        }
        CaTask::Activate { of } => (Changed::Later(Step::Activate, of.authority), of.making),
        CaTask::Taint { of } => (Changed::Later(Step::Taint, of.authority), of.making),
        CaTask::Revoke { of } => (Changed::Later(Step::Revoke, of.authority), of.making),
    };
    let now = now();
    let present = Present::read(&making.at.public, making.repository)?;
    let request = Change::Authority(changed).request(&present, making.days, now)?;
    put_request(&request, &present, &making, now)
}

/// Writes a request down, and says what it changes.
fn put_request(
    request: &Request,
    present: &Present,
    making: &Making,
    now: UnixSeconds,
) -> Result<String, CeremonyError> {
    let text = inspect(request, present, now)?;
    let mut transcript = Transcript::open(&making.at.transcript())?;
    fresh(&making.out)?;
    let decided = format!(
        "requested a new {} of the {} repository",
        request.role, request.repository
    );
    transcript.note(now, "request", Some(request.sha256()?), &decided)?;
    request.write(&making.out)?;
    Ok(text)
}

fn sign_one(
    at: &At,
    request: &Path,
    key: &Path,
    passphrase_files: &[PathBuf],
    confirm: Option<String>,
    out: &Path,
) -> Result<String, CeremonyError> {
    let now = now();
    let request = Request::read(request)?;
    let present = Present::read(&at.public, request.repository)?;
    let checked = request.check(&present, now)?;
    let key = Opening::new(passphrase_files)?.key(key)?;
    signer(&request, &checked, &key)?;
    let typed = match confirm {
        Some(typed) => typed,
        None if custody::somebody() => {
            drop(std::io::stderr().write_all(inspect(&request, &present, now)?.as_bytes()));
            custody::ask_openly("Type the first 8 characters of the payload's sha256 to sign: ")?
        }
        None => return Err(CeremonyError::Unconfirmed),
    };
    let signature = sign(&request, &checked, &key, &typed)?;
    let mut transcript = Transcript::open(&at.transcript())?;
    fresh(out)?;
    let decided = format!("{} signed {} {}", signature.keyid, request.role, checked.version);
    transcript.note(now, "sign", Some(checked.sha256), &decided)?;
    signature.write(out)?;
    Ok(format!(
        "Signed {} {} as {}.\n",
        request.role, checked.version, signature.keyid
    ))
}

fn assemble_all(at: &At, request: &Path, signatures: &[PathBuf]) -> Result<String, CeremonyError> {
    let now = now();
    let request = Request::read(request)?;
    let present = Present::read(&at.public, request.repository)?;
    let checked = request.check(&present, now)?;
    let assembled = assemble(&request, &checked, signatures, &present, now)?;
    let mut transcript = Transcript::open(&at.transcript())?;
    // What is for one device is no file of a repository.
    let out = if request.role == recovery::ROLE {
        at.public.join(&assembled.name)
    } else {
        present.folder.join(&assembled.name)
    };
    fresh(&out)?;
    let decided = format!("assembled {}/{}", request.repository, assembled.name);
    transcript.note(now, "assemble", Some(checked.sha256), &decided)?;
    put_new(&out, &assembled.bytes)?;
    Ok(format!("Wrote {}. A device would take it.\n", out.display()))
}

/// Refuses a file that is there before anything is written down about it.
fn fresh(out: &Path) -> Result<(), CeremonyError> {
    if out.symlink_metadata().is_ok() {
        return Err(CeremonyError::Exists {
            path: out.display().to_string(),
        });
    }
    Ok(())
}

fn now() -> UnixSeconds {
    UnixSeconds::new(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    )
}
