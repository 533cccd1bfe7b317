//! What can be asked of `redan-ceremony`, as `--help` shows it.

use clap::{Args, Parser, Subcommand, ValueEnum};
use redan_ceremony::crl::Listing;
use redan_ceremony::present::RepositoryName;
use redan_identity::{IssuerKind, TokenUri};
use redan_protocol::{ComponentName, FleetId, OperatorName, PublisherName, UnixSeconds};
use std::path::PathBuf;

/// Found a fleet, keep its keys, and change them: file in, file out. Run it on a machine without a network.
///
/// A change goes: request, then inspect and sign by one holder after another, each with a copy of the public folder of their own,
/// then assemble. docs/ceremony.md has examples.
#[derive(Parser)]
#[command(name = "redan-ceremony", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Ceremony,
}

#[derive(Subcommand)]
pub(crate) enum Ceremony {
    /// Found a fleet: keys, TUF roots, fleet CA, first metadata.
    Init {
        /// `development` keeps keys in files with threshold 1, and can never become `production`.
        #[arg(long)]
        profile: ProfileArgument,
        /// Name of the fleet, for example plant.example.
        #[arg(long)]
        fleet: FleetId,
        /// A publisher; may be given several times.
        #[arg(long = "publisher", required = true)]
        publishers: Vec<PublisherName>,
        /// A component to delegate, publisher/workload; may be given several times.
        #[arg(long = "component")]
        components: Vec<ComponentName>,
        /// Key holders of each offline role [default: 1 in development, 3 in production].
        #[arg(long)]
        holders: Option<u32>,
        /// How many of them must sign [default: 1 in development, 2 in production].
        #[arg(long)]
        threshold: Option<u32>,
        /// Holder and key of theirs in a token, for example release.root-1=pkcs11:…; may be given several times. Made before, with
        /// token-key.
        #[arg(long = "key", value_parser = holder_and_uri)]
        tokens: Vec<(String, TokenUri)>,
        #[command(flatten)]
        keeping: Keeping,
        /// Folder to write; must not exist. offline/ is for the custodians' media, online/ for the control server.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make a key: a private half for its holder, a public half for a request.
    Key {
        /// What it is for, for example release.root-4, component.acme.thermo-1, or release.timestamp.
        #[arg(long)]
        purpose: String,
        #[command(flatten)]
        keeping: Keeping,
        /// Folder to write <purpose>.key.json and <purpose>.public.json to.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make a key in a PKCS#11 token, which never gives it away, and write its public half for a request or a founding.
    TokenKey {
        /// pkcs11:token=LABEL;object=PURPOSE?module-path=/FILE, with &pin-source=file:/FILE unless the PIN is typed. The key is for what
        /// object= says, for example release.root-4.
        #[arg(long, value_parser = token_uri)]
        uri: TokenUri,
        /// Make none: write the public half of the key that is there.
        #[arg(long)]
        present: bool,
        /// Folder to write <object>.public.json to.
        #[arg(long)]
        out: PathBuf,
    },
    /// Write a key again under another passphrase.
    Rewrap {
        /// The key file.
        #[arg(long)]
        key: PathBuf,
        /// File with the present passphrase; without it, it is asked for.
        #[arg(long)]
        old_passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        keeping: Keeping,
        /// File to write; must not exist.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make a key and certificate for an operator (7 days), for the control server (90 days), or for its device issuer (a year).
    Issue {
        /// For an operator of this name; without it, for the control server.
        #[arg(long)]
        operator: Option<OperatorName>,
        /// For the issuer of devices' certificates that the control server holds; --issuer is then the fleet's root.
        #[arg(long, conflicts_with = "operator")]
        device_issuer: bool,
        /// The fleet's public/ folder.
        #[arg(long)]
        fleet_dir: PathBuf,
        /// operator-issuer.pem, server-issuer.pem, or for a device issuer fleet-ca.key.pem of offline/; or with .sealed.
        #[arg(long)]
        issuer: PathBuf,
        /// File with the issuer's passphrase; without it, it is asked for.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
        /// pkcs11: URI of the key in a token: it is made there if it is not. Without it, the key is in the file.
        #[arg(long, value_parser = token_uri)]
        key: Option<TokenUri>,
        /// File to write; must not exist.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make the next list of servers' or operators' certificates that are taken back, for policy signers to publish.
    Crl(ListArguments),
    /// Make metadata for others to sign, and say what it changes.
    #[command(subcommand)]
    Request(Template),
    /// Change the fleet's certificate authority while its devices run: make, prepare, activate, taint, revoke.
    #[command(subcommand)]
    Ca(CaTask),
    /// Say what a request is and changes, held against your own copy of the public folder.
    Inspect {
        #[command(flatten)]
        at: At,
        /// The request.
        #[arg(long)]
        request: PathBuf,
    },
    /// Sign a request with one key. Type, or give, the first 8 characters of its digest, or more.
    Sign {
        #[command(flatten)]
        at: At,
        /// The request.
        #[arg(long)]
        request: PathBuf,
        /// Your key file, or the pkcs11: URI of your key in a token.
        #[arg(long)]
        key: PathBuf,
        /// File with its passphrase; without it, it is asked for.
        #[arg(long)]
        passphrase_file: Option<PathBuf>,
        /// First 8 characters or more of the payload's sha256, as you read them elsewhere; without it, they are asked for.
        #[arg(long)]
        confirm: Option<String>,
        /// File to write the signature to; must not exist.
        #[arg(long)]
        out: PathBuf,
    },
    /// Collect signatures, prove that a device would take the result, and write it into the public folder.
    Assemble {
        #[command(flatten)]
        at: At,
        /// The request.
        #[arg(long)]
        request: PathBuf,
        /// A signature; may be given several times.
        #[arg(long = "signature", required = true)]
        signatures: Vec<PathBuf>,
    },
    /// Walk a whole public folder as a device would, and check its transcript's chain.
    Verify {
        #[command(flatten)]
        at: At,
    },
}

/// What is done to a certificate authority. All but `make` are requests for a new release root, to be inspected, signed and assembled as
/// any other, and then brought to the server: redan-control fleet keys.
#[derive(Subcommand)]
pub(crate) enum CaTask {
    /// Make an authority with its issuers, and what the server is to have of it. Nobody believes it before it is prepared.
    Make {
        /// The fleet's public/ folder.
        #[arg(long)]
        fleet_dir: PathBuf,
        #[command(flatten)]
        keeping: Keeping,
        /// Folder to write; must not exist. offline/ is for the custodians' media, online/ for the control server.
        #[arg(long)]
        out: PathBuf,
    },
    /// Every device learns the new authority, which issues nothing yet.
    Prepare {
        /// Its certificate: ca.pem of the folder that `ca make` wrote.
        #[arg(long)]
        ca: PathBuf,
        #[command(flatten)]
        making: Making,
    },
    /// It issues everything new; what the one before issued stays good. Bring the server its online/ folder with this root.
    Activate {
        #[command(flatten)]
        of: Of,
    },
    /// What the old one issued is replaced at once, and stays good until it is.
    Taint {
        #[command(flatten)]
        of: Of,
    },
    /// Nobody believes it any more: first see in `redan status` that no device holds a certificate of it.
    Revoke {
        #[command(flatten)]
        of: Of,
    },
}

/// Which authority.
#[derive(Args)]
pub(crate) struct Of {
    /// SHA-256 of its certificate, or its first 8 characters or more: `verify` lists them.
    #[arg(long)]
    pub(crate) authority: String,
    #[command(flatten)]
    pub(crate) making: Making,
}

/// What to request.
#[derive(Subcommand)]
pub(crate) enum Template {
    /// New holders of a role that people sign: root, targets, snapshot, plan, direction, policy, component.<publisher>.<workload>.
    AddHolder {
        /// The role.
        #[arg(long)]
        role: String,
        /// A public key file; may be given several times.
        #[arg(long = "key", required = true)]
        keys: Vec<PathBuf>,
        /// How many must sign from now on [default: as before].
        #[arg(long)]
        threshold: Option<u32>,
        #[command(flatten)]
        making: Making,
    },
    /// Holders who leave, or lost their key.
    RemoveHolder {
        /// The role.
        #[arg(long)]
        role: String,
        /// The id of a key, or its first 8 characters or more; may be given several times.
        #[arg(long = "key-id", required = true)]
        ids: Vec<String>,
        /// How many must sign from now on [default: as before].
        #[arg(long)]
        threshold: Option<u32>,
        #[command(flatten)]
        making: Making,
    },
    /// Emergency: new keys in the place of all keys of roles the control server signs.
    RevokeOnline {
        /// Role and public key file, for example timestamp=release.timestamp.public.json; may be given several times.
        #[arg(long = "key", required = true, value_parser = role_and_key)]
        keys: Vec<(String, PathBuf)>,
        #[command(flatten)]
        making: Making,
    },
    /// The same again with a new expiry: root, targets, or a delegated role.
    Rotate {
        /// The role.
        #[arg(long)]
        role: String,
        #[command(flatten)]
        making: Making,
    },
    /// A component's own role, after the founding; or, for a fleet founded before there was one, the role direction.
    Delegate {
        /// publisher/workload
        #[arg(long, required_unless_present = "role", conflicts_with = "role")]
        component: Option<ComponentName>,
        /// The role direction, which directs devices without a network.
        #[arg(long, value_enum)]
        role: Option<LaterRole>,
        /// A signer's public key file; may be given several times.
        #[arg(long = "key", required = true)]
        keys: Vec<PathBuf>,
        /// How many must sign.
        #[arg(long)]
        threshold: u32,
        #[command(flatten)]
        making: Making,
    },
    /// An answer to a device that lost its trust record: holders of the release root sign it.
    Recover {
        /// What `redan-device recover --request` printed.
        #[arg(long)]
        device_request: PathBuf,
        /// Sequence number of the last direction the server gave the device, from `redan device show`.
        #[arg(long)]
        sequence: u64,
        /// Serial of the newest fleet policy.
        #[arg(long, default_value_t = 0)]
        policy_serial: u64,
        /// Version of the server's release timestamp.
        #[arg(long, default_value_t = 0)]
        timestamp: u64,
        /// Lowest release counter of a component, publisher/workload=counter; may be given several times. What the device still
        /// remembers holds anyway.
        #[arg(long = "counter", value_parser = component_and_counter)]
        counters: Vec<(ComponentName, u64)>,
        #[command(flatten)]
        making: Making,
    },
    /// A snapshot of the newest files of every role; devices see a new targets file only through one.
    Snapshot {
        #[command(flatten)]
        making: Making,
    },
}

/// A role of the release repository that a fleet may be older than.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LaterRole {
    /// Directs devices without a network.
    Direction,
}

/// Where the fleet's public folder and the transcript are.
#[derive(Args)]
pub(crate) struct At {
    /// The fleet's public/ folder: your own copy, not one that came with the request.
    #[arg(long)]
    pub(crate) public: PathBuf,
    /// Where decisions are written down [default: transcript.jsonl in the public folder].
    #[arg(long)]
    pub(crate) transcript: Option<PathBuf>,
}

impl At {
    /// The transcript's file.
    pub(crate) fn transcript(&self) -> PathBuf {
        let usual = || self.public.join("transcript.jsonl");
        self.transcript.clone().unwrap_or_else(usual)
    }
}

/// What every request needs.
#[derive(Args)]
pub(crate) struct Making {
    #[command(flatten)]
    pub(crate) at: At,
    /// Which repository.
    #[arg(long, default_value = "release")]
    pub(crate) repository: RepositoryName,
    /// How long it is good for [default: root, targets, policy 365; components 180; plan, snapshot 90].
    #[arg(long)]
    pub(crate) days: Option<u64>,
    /// File to write the request to; must not exist.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// How new private keys are kept.
#[derive(Args)]
pub(crate) struct Keeping {
    /// File with the new passphrase, of one line and mode 0600: once, or once for each holder in their order. Without it, a
    /// production fleet's are asked for.
    #[arg(long = "passphrase-file", conflicts_with = "plain_keys")]
    pub(crate) passphrase_files: Vec<PathBuf>,
    /// Write private keys as they are: for keys that sign unattended, and for development.
    #[arg(long)]
    pub(crate) plain_keys: bool,
}

#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
pub(crate) enum ProfileArgument {
    Development,
    Production,
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("after").required(true).args(["first", "previous"])))]
pub(crate) struct ListArguments {
    /// Whose certificates.
    #[arg(long)]
    of: ListedArgument,
    /// The fleet's public/ folder.
    #[arg(long)]
    pub(crate) fleet_dir: PathBuf,
    /// server-issuer.pem or operator-issuer.pem of offline/, or the device-issuer.pem of another authority; or with .sealed.
    #[arg(long)]
    pub(crate) issuer: PathBuf,
    /// File with the issuer's passphrase; without it, it is asked for.
    #[arg(long)]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// There was no list before.
    #[arg(long)]
    first: bool,
    /// The list that is published now: the next one names whom it names.
    #[arg(long)]
    previous: Option<PathBuf>,
    /// A certificate to take back, PEM; may be given several times.
    #[arg(long)]
    revoked: Vec<PathBuf>,
    /// File to write; must not exist.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// Whose certificates a list takes back.
#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
pub(crate) enum ListedArgument {
    Servers,
    Operators,
    /// Of an authority that is not active; `redan crl publish` makes the active one's list.
    Devices,
}

impl ListArguments {
    /// What is asked, the file with the issuer's passphrase, and the file to write.
    pub(crate) fn listing(self, now: UnixSeconds) -> (Listing, Option<PathBuf>, PathBuf) {
        let listing = Listing {
            of: self.of.into(),
            public: self.fleet_dir,
            issuer: self.issuer,
            // That there is none has to be said.
            previous: self.previous.filter(|_| !self.first),
            revoked: self.revoked,
            now,
        };
        (listing, self.passphrase_file, self.out)
    }
}

impl From<ListedArgument> for IssuerKind {
    fn from(of: ListedArgument) -> Self {
        match of {
            ListedArgument::Servers => Self::Server,
            ListedArgument::Operators => Self::Operator,
            ListedArgument::Devices => Self::Device,
        }
    }
}

fn token_uri(text: &str) -> Result<TokenUri, String> {
    TokenUri::parse(text).map_err(|error| error.to_string())
}

fn holder_and_uri(text: &str) -> Result<(String, TokenUri), String> {
    let (holder, uri) = text
        .split_once('=')
        .ok_or("a holder and their key are written holder=pkcs11:…")?;
    Ok((holder.to_owned(), token_uri(uri)?))
}

fn component_and_counter(text: &str) -> Result<(ComponentName, u64), String> {
    let parsed = text.split_once('=').and_then(|(component, counter)| {
        Some((ComponentName::parse(component).ok()?, counter.parse().ok()?))
    });
    parsed.ok_or_else(|| "a release counter is written publisher/workload=counter".to_owned())
}

fn role_and_key(text: &str) -> Result<(String, PathBuf), String> {
    let (role, path) = text
        .split_once('=')
        .ok_or("a role and its new key are written role=file")?;
    Ok((role.to_owned(), PathBuf::from(path)))
}
