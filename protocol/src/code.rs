//! The closed table of codes: every refusal, limit and failure that leaves the process it happened in.
//!
//! Codes are wire format: append only, never reuse a number. A code says *what rule said no*; the text beside it says
//! what to do. Nothing a workload or a peer wrote is ever part of a code.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $remedy:literal;)+) => {
        /// One code of the closed table. Serialised as its number.
        #[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u16", into = "u16")]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)+
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// The stable name, as people and scripts read it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What to do about it.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)+ }
            }

            /// Reads a number from the wire.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

codes! {
    // 1–39: trust and decide(), rule letters from docs/trust.md
    /// Rule a: the director's metadata names another device.
    WrongDevice = 1, "wrong-device", "the control server answered for another device; check which identity this device presents";
    /// Rule a/b: metadata is not signed by its role's threshold.
    ThresholdNotMet = 2, "threshold-not-met", "have the missing signers sign, then publish again";
    /// Rule b: a directed target is not in the release repository, or not delegated to its component's role.
    NotReleased = 3, "not-released", "publish and sign the component in the release repository first";
    /// Rule b: length, hash or `match` differ between the release and the director repository.
    ReleaseMismatch = 4, "release-mismatch", "the director offers something the release signers did not sign; investigate the control server";
    /// Rule c: the release counter is below the signed floor.
    BelowFloor = 5, "below-floor", "publish a version above the floor, or sign a lower floor";
    /// Rule c: the release counter is below one this device has already committed.
    BelowCommitted = 6, "below-committed", "publish with a higher release counter, or name an allowed rollback set in a signed plan";
    /// Rule d: the release set is malformed, or not the one the direction names.
    SetInvalid = 7, "set-invalid", "sign the release set again";
    /// Rule d: a directed target is not a member of the release set, or a member is missing.
    SetIncomplete = 8, "set-incomplete", "direct exactly the members of the signed set";
    /// Rule e: this device's ring has not opened yet.
    RingNotOpen = 9, "ring-not-open", "wait: the signed plan opens this device's ring later";
    /// Rule f: the hardware class is not one the component was built for.
    WrongHardware = 10, "wrong-hardware", "publish for this hardware class";
    /// Rule f: this runtime does not offer the component's world.
    WrongWorld = 11, "wrong-world", "update the runtime, or build the component for a world it offers";
    /// Rule f: something the component requires is not part of the set or the device.
    RequiresUnmet = 12, "requires-unmet", "add the required component to the release set";
    /// Rule f: something present conflicts with the component.
    Conflicts = 13, "conflicts", "remove the conflicting component from the release set";
    /// Rule g: a required capability did not survive fleet policy and device ceiling.
    CapabilityDenied = 14, "capability-denied", "run `redan explain` to see which file denies it and who must sign the change";
    /// Rule h: the digest is revoked by signed policy.
    Revoked = 15, "revoked", "publish a fixed version";
    /// Rule h: this device denied the digest after a failed trial.
    DeniedAfterTrial = 16, "denied-after-trial", "publish a fixed version, or unblock the digest in a newer direction";
    /// Rule i: no fresh statement, and the offline rule does not apply.
    NotFresh = 17, "not-fresh", "let the device reach the control server, or carry a newer offline bundle to it";
    /// Metadata has expired by proven time.
    MetadataExpired = 18, "metadata-expired", "sign the role again before devices can adopt anything new";
    /// A role's version went backwards.
    MetadataRollback = 19, "metadata-rollback", "the server offers old metadata; investigate it";
    /// Metadata is malformed, too large, ambiguous, or its hash differs from what its parent says.
    MetadataInvalid = 20, "metadata-invalid", "publish the metadata again";
    /// A root version could not be fetched for a reason other than its absence.
    RootUnavailable = 21, "root-unavailable", "restore the control server; no update is adopted meanwhile";
    /// The device's own trust record is missing or damaged.
    StateLost = 22, "state-lost", "recover the device: `redan-device recover --request`, and have the holders of the release root sign the answer";
    /// The direction is older than one this device has already followed.
    DirectionReplayed = 23, "direction-replayed", "the server offers an old direction; investigate it";
    /// The direction's deadline has passed.
    DirectionExpired = 24, "direction-expired", "start a new rollout";
    /// Metadata or custom section of another fleet.
    WrongFleet = 25, "wrong-fleet", "the metadata belongs to another fleet";
    /// The fleet policy is missing, malformed, or older than one this device has seen.
    PolicyRollback = 26, "policy-rollback", "sign the fleet policy with a higher serial";
    /// The direction's not-before lies beyond proven time.
    NotYet = 27, "not-yet", "wait for the direction's start";
    /// The device's trust record is whole: there is nothing to recover.
    RecoveryNotNeeded = 28, "recovery-not-needed", "nothing: the device has its trust record and goes on from it";
    /// The recovery document does not answer the request this device waits for, or it waits for none.
    RecoveryUnasked = 29, "recovery-unasked", "make a request on this device with `redan-device recover --request`, and have that one signed";

    // 40–59: admission of a component
    /// A core module where a component is wanted.
    CoreModule = 40, "core-module", "build a component (target wasm32-wasip2, or wrap the module with `wasm-tools component new`)";
    /// Native code where a component is wanted.
    PrecompiledCode = 41, "precompiled-code", "publish the Wasm component; devices compile it themselves";
    /// An import that the ask does not name.
    UndeclaredImport = 42, "undeclared-import", "name the capability in the ask, or remove the import";
    /// The component does not export what its world promises.
    MissingExport = 43, "missing-export", "export what the ask's world promises";
    /// Not Wasm, or malformed, or using a proposal that is off.
    MalformedComponent = 44, "malformed-component", "build the component again";
    /// Larger than the limit.
    ComponentTooLarge = 45, "component-too-large", "make the component smaller";
    /// Compilation ran out of its time or memory.
    CompileBudget = 46, "compile-budget", "split or shrink the component";
    /// The compiler process died.
    CompilerFailed = 47, "compiler-failed", "see the device's own log";

    /// The policy demands an isolation mechanism that is not in force on this device.
    IsolationMissing = 48, "isolation-missing", "run a kernel that has it and start the device as root, or take it out of the policy's [require]";
    /// More outgoing connections at once than allowed.
    SocketLimit = 49, "socket-limit", "close connections sooner, or ask for more sockets";

    // 60–69: policy
    /// A policy document does not parse.
    PolicyInvalid = 60, "policy-invalid", "correct the named line";
    /// The fleet policy does not cover this component.
    SubjectNotAllowed = 61, "subject-not-allowed", "name the publisher and component in the fleet policy";
    /// The fleet policy revokes this version and all before it.
    VersionRevoked = 62, "version-revoked", "publish a version at or above the fleet policy's `revoke.min_version`";
    /// It was signed longer ago than the fleet policy admits.
    SignedTooLongAgo = 63, "signed-too-long-ago", "have the release signers sign the component again";
    /// The fleet policy asks for a newer runtime than this device has.
    RuntimeTooOld = 64, "runtime-too-old", "update redan-device on this device";
    /// A secret's file is missing, readable by others, too long, or no value of a header field.
    SecretMissing = 65, "secret-missing", "put the value into the file the device ceiling names: one line, at most 4 KiB, mode 0600, owned by root or by the user redan-device runs as";
    /// The metadata could not be refreshed for longer than policy lets workloads run on.
    Stale = 66, "stale", "let the device reach its control server, or carry a bundle to it: redan-device apply";

    // 67, and 89–92 below: the local bus
    /// The receiver of a message of the local bus said `retry`, or failed; it is handed over again.
    BusUnsettled = 67, "bus-unsettled", "see the log of the receiving workload's owner on the device; drop messages that cannot be handled";

    // 80–99: fetch, store, disk
    /// The bytes do not have the signed digest.
    DigestMismatch = 80, "digest-mismatch", "restore the artifact in the store; the device takes nothing else";
    /// More or fewer bytes than signed.
    LengthMismatch = 81, "length-mismatch", "restore the artifact in the store";
    /// The server has no such artifact.
    ArtifactMissing = 82, "artifact-missing", "publish the artifact to the store";
    /// The download did not finish within its budget.
    FetchBudget = 83, "fetch-budget", "check the network between device and server";
    /// The device's disk is full.
    DiskFull = 84, "disk-full", "free space on the device";
    /// The device's disk failed.
    DiskFailed = 85, "disk-failed", "check the device's storage";
    /// Sealed native code failed its check; it was thrown away and is compiled again.
    CachePoisoned = 86, "cache-poisoned", "nothing: the code was compiled again; find out who wrote to the cache";
    /// The control server could not be reached.
    Unreachable = 87, "unreachable", "check the network, the server and both clocks";
    /// The folder is no bundle, or files that its own metadata names are not in it.
    BundleInvalid = 88, "bundle-invalid", "write the bundle again with `redan bundle`, and check that the whole folder was copied";

    // 89–92: the local bus
    /// Nobody takes a message of the local bus now: its receiver does not run here, or does not hear this sender.
    BusAbsent = 89, "bus-absent", "install the receiver, and let its ask, the fleet policy and the device ceiling name this sender; the item waits meanwhile";
    /// A message came over the local bus that the sender's or the receiver's grant does not admit.
    BusRefused = 90, "bus-refused", "have both ends' asks name the topic and each other, and fleet policy and device ceiling allow it";
    /// The budget of one end of the local bus is used up; what waits is sent later.
    BusBudget = 91, "bus-budget", "wait for the budget to refill, or ask for more; look whether two workloads answer each other without end";
    /// An item for the local bus is larger than one message of it, or than what its receiver takes.
    BusMessageLimit = 92, "bus-message-limit", "send at most 64 KiB, and no more than the receiver's `limits.body.request`";

    // 94–99: what a runtime of this version does not offer
    /// An import of `wasi:sockets`, and no `[net.sockets]` in the ask.
    SocketsNotOffered = 94, "sockets-not-offered", "use wasi:http; where only a standard library imports sockets, write [net.sockets] into the ask: every call of them is then refused";
    /// A component of WASI 0.3.
    WasiNotOffered = 95, "wasi-not-offered", "build for WASI 0.2, for example with the target wasm32-wasip2";

    // 100–139: the running workload
    /// Linking failed: a granted import is not offered, or its type differs.
    LinkFailed = 100, "link-failed", "build against the WIT of this runtime";
    /// The guest trapped.
    Trapped = 101, "trapped", "see the workload owner's log on the device";
    /// CPU budget of one call used up.
    CpuLimit = 102, "cpu-limit", "make the call cheaper, or ask for more CPU";
    /// Wall-clock limit of one call passed.
    WallLimit = 103, "wall-limit", "answer sooner, or ask for more time";
    /// Memory limit reached.
    MemoryLimit = 104, "memory-limit", "use less memory, or ask for more";
    /// Table limit reached.
    TableLimit = 105, "table-limit", "use fewer table elements, or ask for more";
    /// Handle limit reached.
    HandleLimit = 106, "handle-limit", "drop resources sooner, or ask for more handles";
    /// Host-call byte limit reached.
    HostcallLimit = 107, "hostcall-limit", "pass smaller values, or ask for more";
    /// Request or response body over its limit.
    BodyLimit = 108, "body-limit", "send less, or ask for more";
    /// Header size over its limit.
    HeaderLimit = 109, "header-limit", "send fewer or smaller headers, or ask for more";
    /// Too many calls at once.
    ConcurrencyLimit = 110, "concurrency-limit", "retry later, or ask for more concurrency";
    /// Log budget used up; lines were dropped.
    LogLimit = 111, "log-limit", "log less, or ask for more";
    /// Key-value quota reached.
    KvQuota = 112, "kv-quota", "delete keys, or ask for more";
    /// Volume quota reached.
    VolumeQuota = 113, "volume-quota", "delete files, or ask for more";
    /// Wasm stack used up.
    StackLimit = 114, "stack-limit", "recurse less, or ask for more stack";
    /// More instances wanted than allowed.
    InstanceLimit = 115, "instance-limit", "use fewer instances, or ask for more";
    /// Random bytes over the per-call limit.
    RandomLimit = 116, "random-limit", "ask for fewer random bytes at once";
    /// The job ended and said that it failed.
    JobFailed = 117, "job-failed", "see the workload owner's log on the device";
    /// A message or an item over the size of a request's body.
    MessageLimit = 118, "message-limit", "send smaller messages, or ask for a larger `limits.body.request`";
    /// A handler said `retry`, or failed, as often as a message is handed over; the message was dropped.
    RetriesExhausted = 119, "retries-exhausted", "see the workload owner's log on the device; drop messages that cannot be handled";

    // 120–129: egress
    /// No rule of the grant admits the destination.
    EgressDenied = 120, "egress-denied", "name the destination in the ask and have the fleet policy allow it";
    /// The resolved address is private, special or the platform itself.
    EgressAddressDenied = 121, "egress-address-denied", "use a public address, or have policy allow private ones";
    /// The name does not resolve.
    EgressNameUnknown = 122, "egress-name-unknown", "check the device's resolver";
    /// The destination could not be reached.
    EgressUnreachable = 123, "egress-unreachable", "check the destination";
    /// The egress budget is used up.
    EgressBudget = 124, "egress-budget", "wait for the budget to refill, or ask for more";
    /// A request sets a field that only the host may set: one that carries a secret, frames the message, or has no place in trailers.
    FieldForbidden = 125, "field-forbidden", "do not set that header field; the host does";
    /// The upstream is not whom the rule's roots believe, or does not speak TLS 1.3.
    UpstreamUntrusted = 126, "upstream-untrusted", "check the upstream's certificate against the rule's `tls.roots`";

    // 130–139: messages
    /// One of the three documents does not admit the topic, to hear it or to publish it.
    TopicDenied = 130, "topic-denied", "name the topic in the ask and have fleet policy and device ceiling allow it";
    /// The budget of a rule of publishing is used up; what waits is sent later.
    PublishBudget = 131, "publish-budget", "wait for the budget to refill, or ask for more";
    /// An outbox holds as much as it may.
    OutboxFull = 132, "outbox-full", "see why its destination cannot be reached, or ask for a larger quota";
    /// An item waited longer than its outbox keeps it, and was dropped.
    OutboxExpired = 133, "outbox-expired", "see why its destination could not be reached, or ask for a longer max_age";
    /// A broker of messages said what is not MQTT, or not what it may say; the connection was closed and is tried again.
    BrokerInvalid = 134, "broker-invalid", "check what listens at the broker's address in the device ceiling";
    /// A broker of messages refused the connection or a subscription.
    BrokerRefused = 135, "broker-refused", "check the broker's access list, and the credentials the device ceiling names";
    /// What should name one topic holds a wildcard or a NUL, begins with `$`, is empty or too long.
    TopicInvalid = 136, "topic-invalid", "publish under a name without wildcards and control characters";
    /// The handler said of a message that it is of no use.
    MessageDropped = 137, "message-dropped", "see the workload owner's log on the device";
    /// A file the device ceiling names for a broker is not there, too large, or open to others.
    BrokerFile = 138, "broker-file", "make the file the device's own or root's, with mode 0600";
    /// A broker of messages cannot be reached.
    BrokerUnreachable = 139, "broker-unreachable", "check the broker's address in the device ceiling, and the plant's network";

    // 140–159: trial and update machine
    /// The health probe says unhealthy.
    Unhealthy = 140, "unhealthy", "see the workload owner's log on the device";
    /// The health probe did not answer in time.
    ProbeTimeout = 141, "probe-timeout", "see the workload owner's log on the device";
    /// Too many requests failed during the trial.
    ErrorRate = 142, "error-rate", "see the workload owner's log on the device";
    /// Too many restarts or reboots during the trial.
    TrialAttempts = 143, "trial-attempts", "see the workload owner's log on the device";
    /// Rolled back to the previous version.
    RolledBack = 144, "rolled-back", "publish a fixed version";
    /// Nothing allowed to roll back to: the workload is stopped.
    NothingToRunSafely = 145, "nothing-to-run-safely", "publish a fixed version";
    /// The executor process died.
    ExecutorFailed = 146, "executor-failed", "see the device's own log";
    /// A state's deadline passed.
    DeadlinePassed = 147, "deadline-passed", "start the rollout again";
    /// Cancelled by a newer direction.
    Superseded = 148, "superseded", "nothing: a newer direction is followed";

    // 156–159: limits of the running workload, continued
    /// The workload's share of the device's memory is used up by its calls, or by those of others.
    DeviceMemory = 156, "device-memory", "run fewer calls at once, raise [totals] memory of the device ceiling, or move a workload to another device";
    /// Fuel of one call used up.
    FuelLimit = 157, "fuel-limit", "make the call cheaper, or ask for more fuel";
    /// Files, folders and connections open at once over the limit.
    DescriptorLimit = 158, "descriptor-limit", "close files sooner, or ask for more descriptors";
    /// The workload's share of the CPU was used up: its calls waited.
    CpuShare = 159, "cpu-share", "make calls cheaper, or ask for a larger share";

    // 160–199: identity and enrolment
    /// The certificate does not follow the fleet's profile.
    CertificateProfile = 160, "certificate-profile", "issue the certificate again with the fleet's own tools";
    /// The certificate is of another fleet, or its chain ends elsewhere.
    ForeignCertificate = 161, "foreign-certificate", "present a certificate of this fleet";
    /// The certificate has expired or is not valid yet.
    CertificateExpired = 162, "certificate-expired", "renew the certificate; check both clocks";
    /// The certificate or its key was revoked or superseded.
    CertificateRevoked = 163, "certificate-revoked", "enrol the device again";
    /// The certificate's role may not do this.
    NotAuthorised = 164, "not-authorised", "ask an administrator of the fleet for the role";
    /// No voucher admits this key.
    NotAdmitted = 165, "not-admitted", "have an operator admit the key: `redan device admit`";
    /// The voucher has expired or was used for another key.
    VoucherInvalid = 166, "voucher-invalid", "have an operator issue a new voucher";
    /// The certificate request's key is not the key of the connection, or its signature is wrong.
    CsrInvalid = 167, "csr-invalid", "make the request with the key that opens the connection";
    /// What the server presented is not this fleet's control server.
    ForeignServer = 168, "foreign-server", "check which server the device is pointed at; if the fleet's CA was changed meanwhile, bring a running device the new one with `redan bundle --authorities`, and enrol with a voucher or token made since";
    /// The request's authority is not the name the connection was opened for.
    MisdirectedRequest = 169, "misdirected-request", "send the request to the name you connected to";
    /// The certificate expired longer ago than the fleet lets a device renew by itself.
    RenewalTooLate = 170, "renewal-too-late", "check that the device is where it belongs, revoke it, and enrol it again with a new key";
    /// A newer key of this device has spoken since: the key was copied, or the device restored from a copy.
    KeySuperseded = 171, "key-superseded", "find out which of the two is the device, revoke it, and enrol the right one again with a new key";
    /// The fleet's policy signers decommissioned the device.
    Decommissioned = 180, "decommissioned", "nothing: the device is part of the fleet no longer; to use the machine again, give it an empty state folder and enrol it anew";
    /// A revocation list that is too large, malformed, or another issuer's.
    RevocationListInvalid = 181, "revocation-list-invalid", "publish the revocation list again: `redan crl publish`; the last good one is gone by meanwhile";
    /// A revocation list whose time has passed.
    RevocationListExpired = 182, "revocation-list-expired", "publish a new revocation list: `redan crl publish`; the last good one is gone by meanwhile";
    /// A revocation list that is older than one known before.
    RevocationListRollback = 183, "revocation-list-rollback", "find out who offers an old revocation list; the newer one is gone by meanwhile";
    /// No revocation list of the certificate's issuer is known.
    RevocationListMissing = 184, "revocation-list-missing", "publish a revocation list: `redan crl publish`";
    /// The authority that signed the certificate was revoked by the fleet's root custodians.
    AuthorityRevoked = 185, "authority-revoked", "the fleet's CA was changed: a device asks for a new certificate by itself, and where that is refused for its age its key is admitted once more with `redan device admit`; an operator has one issued under the new authority";
    /// A step of a certificate authority that no authority takes.
    AuthorityStep = 186, "authority-step", "prepare, activate, taint, revoke: one authority, one step, one root at a time (docs/ceremony.md)";
    /// A certificate that should be under the active authority is under another.
    AuthorityInactive = 187, "authority-inactive", "bring certificates that the active authority's issuers signed: `redan-ceremony issue`";
    /// A root that changes the authorities came over the network.
    AuthorityOnHost = 188, "authority-on-host", "bring it to the server's own host, together with its new certificates: `redan-control fleet keys`";
    /// The name of a key in a token does not read.
    TokenUri = 190, "token-uri", "write pkcs11:token=LABEL;object=LABEL?module-path=/FILE&pin-source=file:/FILE";
    /// The module, or the token in it, is not there.
    TokenMissing = 191, "token-missing", "check that the token is plugged in, and that module-path= is its maker's module";
    /// The token refused the PIN, or none was given.
    TokenPin = 192, "token-pin", "give the token's PIN; after a few wrong ones it locks itself";
    /// The token is locked after too many wrong PINs.
    TokenLocked = 193, "token-locked", "have its security officer set a new PIN";
    /// The token has no such key, or several, or one of another kind.
    TokenKeyMissing = 194, "token-key-missing", "check object= against the keys the token has";
    /// The token has a key of that name already.
    TokenKeyExists = 195, "token-key-exists", "name another object=, or remove the key that is there";
    /// The token would hand the private key out.
    TokenKeyExtractable = 196, "token-key-extractable", "make a new key in the token; one that may be taken out is no better than a file";
    /// The token lacks a mechanism.
    TokenMechanism = 197, "token-mechanism", "use a token that offers it, or a key file";
    /// The token failed, or its session was lost.
    TokenFailed = 198, "token-failed", "check that the token is still plugged in, and see its maker's log";

    /// No such join token, or no proof of knowing its secret on this connection and for this request.
    TokenInvalid = 172, "token-invalid", "use the whole token file an operator made for this fleet: `redan token create`";
    /// The join token has expired.
    TokenExpired = 173, "token-expired", "have an operator make a new token: `redan token create`";
    /// As many devices as the join token is for have used it.
    TokenUsedUp = 174, "token-used-up", "have an operator make another token: `redan token create`";
    /// An operator revoked the join token.
    TokenRevoked = 175, "token-revoked", "ask the operator who revoked it why, then for another token";
    /// The name does not begin as the join token says, or name or key is taken.
    NameRefused = 176, "name-refused", "ask for a free name that begins as the token says: `redan-device enrol --id`";

    // 200–239: requests to the platform
    /// Not a request this server understands.
    BadRequest = 200, "bad-request", "correct the request";
    /// No such thing, or not yours to see.
    NotFound = 201, "not-found", "check the name";
    /// Too large.
    TooLarge = 202, "too-large", "send less";
    /// Wrong method.
    WrongMethod = 203, "wrong-method", "use a method the route offers";
    /// Wrong content type or a content encoding.
    WrongContentType = 204, "wrong-content-type", "send the documented content type, without a content encoding";
    /// Range cannot be satisfied.
    RangeInvalid = 205, "range-invalid", "ask for one range within the artifact";
    /// Too many requests.
    Overloaded = 206, "overloaded", "retry after the time the server names";
    /// Somebody else changed it first.
    Conflict = 207, "conflict", "read the present state and try again";
    /// A rollout's pre-flight said no.
    PreflightRefused = 208, "preflight-refused", "correct what is named, then start the rollout again";
    /// The rollout's state does not allow this.
    WrongState = 209, "wrong-state", "see the rollout's state";
    /// A release counter that is not above all that were published.
    CounterNotGrowing = 210, "counter-not-growing", "publish with a counter above the highest one so far";
    /// The server's database does not take what was asked; nothing was changed.
    StoreFailed = 211, "store-failed", "retry after the time the server names; if it lasts, check the disk of the server's state folder";
    /// The request says in a header who it is from; only the certificate does.
    IdentityClaimed = 216, "identity-claimed", "connect without a proxy that adds header fields about its clients";
    /// Whoever started a rollout cannot be the second person who agrees to it.
    OwnRollout = 217, "own-rollout", "have another operator with the role of an approver agree to it";
    /// Nobody changes their own role, so that a fleet never loses its last admin.
    OwnAccount = 218, "own-account", "have another admin do it";
    /// The fleet has as many devices or bytes as this server gives it.
    QuotaReached = 219, "quota-reached", "remove what is no longer needed, or raise the fleet's quota in control.toml";
    /// The control server's certificate is on its issuer's revocation list.
    ServerRevoked = 220, "server-revoked", "give the server a certificate that is not revoked; whoever presents this one may have stolen its key";
    /// The TPM cannot be talked to.
    TpmMissing = 221, "tpm-missing", "check that the TPM's device is there and that this program's user may use it (group tss)";
    /// What is on the disk was made by another TPM, or by this one before it was cleared.
    TpmForeign = 222, "tpm-foreign", "put the disk back into its machine; if the TPM was cleared, revoke the device and enrol it anew in a new state folder";
    /// The TPM failed, or answered what is no answer.
    TpmFailed = 223, "tpm-failed", "see the lines above for what the TPM answered; if it lasts, restart the machine, and see its maker's notes";
    /// The TPM is locked, or wants a password.
    TpmLocked = 224, "tpm-locked", "wait until it unlocks itself, or have its lockout reset: tpm2_dictionarylockout --clear-lockout";
    /// More certificates were asked for than the server signs in a minute.
    IssuingPaced = 225, "issuing-paced", "wait: a device asks again by itself; if it lasts, see which token or device asks for so many (`redan audit list`), or raise enrolments_per_minute_max or renewals_per_minute_max in control.toml";
    /// The audit log is not the one that was seen before, or its chain is broken.
    AuditRewritten = 226, "audit-rewritten", "keep a copy of the log and of the kept head, and investigate the server; compare heads with other operators (`redan audit verify`); once you know why, `redan audit accept`";
    /// The audit log ends before an entry that was seen.
    AuditShortened = 227, "audit-shortened", "find out who cut the log or put an old copy of the server's database in its place; once you know why, `redan audit accept`";
    /// The server did something and its audit log does not say so.
    AuditUntold = 228, "audit-untold", "it is done; keep a copy of the log and investigate the server: it hides what is done";
    /// What an operator's machine keeps of a fleet's audit log does not read.
    HeadUnreadable = 229, "head-unreadable", "check that machine's disk; with nothing kept a rewritten log does not show: compare heads with another operator's, then `redan audit accept`";

    // 234–237: components of WASI 0.3
    /// The device ceiling does not switch WASI 0.3 on, or did so after the device's program started.
    WasiSwitchedOff = 234, "wasi-switched-off", "set wasi_0_3 = true under [runtime] in the device ceiling and start redan-device again, or build for WASI 0.2";
    /// A limit of the grant does not hold for WASI 0.3.
    WasiLimitNotHeld = 235, "wasi-limit-not-held", "take `fuel_per_call` out of the document that names it, or build for WASI 0.2";
    /// A component of a world of WASI 0.3 imports an interface of it that is not offered.
    WasiPartNotOffered = 236, "wasi-part-not-offered", "use the interface of WASI 0.2, as standard libraries do: a component may import both";
    /// A component of WASI 0.3 with components inside that have code of their own.
    WasiComposed = 237, "wasi-composed", "build it as one component, or for WASI 0.2: tasks between components cannot be bounded yet";
    /// Our own fault.
    Internal = 255, "internal", "report it with the server's log";
}

/// A number that is not in the table of this version.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} is not a code this version knows")]
pub struct UnknownCode(pub u16);

impl TryFrom<u16> for Code {
    type Error = UnknownCode;
    fn try_from(number: u16) -> Result<Self, UnknownCode> {
        Self::from_number(number).ok_or(UnknownCode(number))
    }
}

impl From<Code> for u16 {
    fn from(code: Code) -> u16 {
        code.number()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Serialises an optional code by its name: for answers that people read, where a number says nothing.
pub mod by_name {
    use super::Code;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    /// The name, or nothing.
    #[allow(clippy::ref_option, reason = "the signature serde's `with` calls")]
    pub fn serialize<S: Serializer>(code: &Option<Code>, to: S) -> Result<S::Ok, S::Error> {
        code.map(Code::name).serialize(to)
    }

    /// A name of the table, or nothing.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Code>, D::Error> {
        let Some(name) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        let found = Code::ALL.iter().find(|code| code.name() == name);
        found
            .map(|code| Some(*code))
            .ok_or_else(|| D::Error::custom("not the name of a code this version knows"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_its_own_number_and_name_and_a_remedy() {
        let numbers: BTreeSet<u16> = Code::ALL.iter().map(|code| code.number()).collect();
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(numbers.len(), Code::ALL.len());
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(*code));
            assert!(code.remedy().len() > 8, "{code} says nothing about what to do");
        }
    }

    #[derive(Debug, Eq, PartialEq, Serialize, Deserialize)]
    struct Answer {
        #[serde(with = "by_name")]
        why: Option<Code>,
    }

    #[test]
    fn a_code_by_name_reads_back_and_an_unknown_name_is_refused() {
        for code in Code::ALL {
            let text = serde_json::to_string(&Answer { why: Some(*code) }).unwrap();
            assert_eq!(text, format!("{{\"why\":\"{code}\"}}"));
            assert_eq!(
                serde_json::from_str::<Answer>(&text).unwrap(),
                Answer { why: Some(*code) }
            );
        }
        assert_eq!(
            serde_json::from_str::<Answer>("{\"why\":null}").unwrap(),
            Answer { why: None }
        );
        assert!(serde_json::from_str::<Answer>("{\"why\":\"no-such-code\"}").is_err());
    }

    #[test]
    fn an_unknown_number_is_not_a_code() {
        assert_eq!(Code::try_from(9999), Err(UnknownCode(9999)));
    }
}
