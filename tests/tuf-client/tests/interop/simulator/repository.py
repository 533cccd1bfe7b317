"""A repository in memory. Documents are plain dictionaries, so that they can say what no library would let them say; they are
encoded and signed by python-tuf's `securesystemslib`."""

import copy
import hashlib
import json
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner

TOP = ("root", "timestamp", "snapshot", "targets")
# Made once: keys are slow to make, and no two roles of one repository share one.
ED25519 = [CryptoSigner.generate_ed25519() for _ in range(24)]
OTHERS = {
    ("rsa", "rsassa-pss-sha256"): [CryptoSigner.generate_rsa(size=2048)],
    ("rsa", "rsa-pkcs1v15-sha256"): [CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256", size=2048)],
    ("ecdsa", "ecdsa-sha2-nistp256"): [CryptoSigner.generate_ecdsa()],
    ("ed25519", "ed25519"): [ED25519[23]],
}


def expires(days):
    """So many days from now, in whole seconds."""
    return (datetime.now(timezone.utc) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def document(kind, **fields):
    return {"_type": kind, "spec_version": "1.0.34", "version": 1, "expires": expires(30), **fields}


def key(signer):
    return signer.public_key.to_dict()


def keyid(signer):
    return signer.public_key.keyid


def signature(signed, signer):
    found = signer.sign(encode_canonical(signed).encode())
    return {"keyid": found.keyid, "sig": found.signature}


def digest(data, algorithm="sha256"):
    return hashlib.new(algorithm, data).hexdigest()


def entry(data, algorithms=("sha256",)):
    return {"length": len(data), "hashes": {name: digest(data, name) for name in algorithms}}


def quoted(path):
    return "/".join(quote(part, "") for part in path.split("/"))


class Repository:
    """What one server has, and what was asked of it."""

    def __init__(self):
        self.spare = iter(ED25519[:23])
        self.hashes = ()
        self.docs = {
            "root": document("root", consistent_snapshot=True, keys={}, roles={}),
            "timestamp": document("timestamp", meta={"snapshot.json": {"version": 1}}),
            "snapshot": document("snapshot", meta={}),
            "targets": document("targets", targets={}),
        }
        self.signers = {}
        # Files by what stands behind the last slash of a request; statuses that are answered instead of them (0 hangs up).
        self.files, self.statuses, self.artifacts = {}, {}, {}
        self.asked, self.fetched = [], []
        for role in TOP:
            self.rotate(role)
        self.publish("targets", "snapshot", "timestamp", "root")

    @property
    def root(self):
        return self.docs["root"]

    def signer(self):
        return next(self.spare)

    def rotate(self, role, count=1, threshold=1):
        """Gives a role of the root other keys."""
        self.trust(role, [self.signer() for _ in range(count)], threshold)

    def trust(self, role, signers, threshold=1):
        self.signers[role] = signers
        self.root["keys"].update((keyid(signer), key(signer)) for signer in signers)
        self.root["roles"][role] = {"keyids": [keyid(signer) for signer in signers], "threshold": threshold}

    def delegate(self, parent, role, paths=("*",), terminating=False, **instead):
        """Trusts a new role, last in line. `instead` of `paths`."""
        delegations = self.docs[parent].setdefault("delegations", {"keys": {}, "roles": []})
        if role not in self.docs:
            self.docs[role] = document("targets", targets={})
            self.signers[role] = [self.signer()]
        signers = self.signers[role]
        delegations["keys"].update((keyid(signer), key(signer)) for signer in signers)
        delegations["roles"].append({
            "name": role, "keyids": [keyid(signer) for signer in signers], "threshold": 1, "terminating": terminating,
            **(instead or {"paths": list(paths)}),
        })

    def add(self, role, path, data, algorithms=("sha256",)):
        """A target, and its bytes under each name that it may be asked for by."""
        self.docs[role]["targets"][path] = entry(data, algorithms)
        folder, slash, name = path.rpartition("/")
        for prefix in ["", *[f"{digest(data, algorithm)}." for algorithm in algorithms]]:
            self.artifacts[quoted(f"{folder}{slash}{prefix}{name}")] = data

    def sign(self, role, signers=None):
        signed = self.docs[role]
        signers = self.signers[role] if signers is None else signers
        return {"signed": signed, "signatures": [signature(signed, signer) for signer in signers]}

    def name(self, role, version=None):
        stem = quote(role, "")
        plain = role == "timestamp" or (role != "root" and not self.root.get("consistent_snapshot"))
        return f"{stem}.json" if plain else f"{version or self.docs[role]['version']}.{stem}.json"

    def put(self, role, envelope):
        """Serves an envelope, or bytes, as a role's present version; what points to it is told."""
        data = envelope if isinstance(envelope, bytes) else json.dumps(envelope, indent=1).encode()
        self.files[self.name(role)] = data
        said = {"version": self.docs[role]["version"]}
        if self.hashes:
            said |= entry(data, self.hashes)
        if role == "snapshot":
            self.docs["timestamp"]["meta"]["snapshot.json"] = said
        elif role not in ("root", "timestamp"):
            self.docs["snapshot"]["meta"][f"{role}.json"] = said
        return data

    def publish(self, *roles):
        """Signs and serves roles in this order, each with the next version unless it is new."""
        for role in roles:
            if self.name(role) in self.files:
                self.docs[role]["version"] += 1
            self.put(role, self.sign(role))

    def publish_all(self, *more):
        self.publish(*more, "targets", "snapshot", "timestamp")

    def back(self, role, version=1):
        """As if a role had never gone further than this version."""
        self.docs[role]["version"] = version
        self.put(role, self.sign(role))

    def frozen(self):
        """The files as they are now, to be replayed later."""
        return copy.copy(self.files)
