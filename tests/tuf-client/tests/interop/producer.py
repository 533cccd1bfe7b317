"""Writes what python-tuf's own library signs: one folder for each state of a server."""

import sys
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole, Delegations, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp,
)

OUT = Path(sys.argv[1])
EXPIRES = datetime(2099, 1, 1, tzinfo=timezone.utc)
CONTENT = b"made by python\n"
# One key of every kind the specification names.
SIGNERS = {
    "root": [CryptoSigner.generate_ed25519(), CryptoSigner.generate_ecdsa()],
    "timestamp": [CryptoSigner.generate_ed25519()],
    "snapshot": [CryptoSigner.generate_rsa()],
    "targets": [CryptoSigner.generate_ecdsa()],
}
DELEGATE = "../delegate ?"
# What canonical JSON is easily got wrong on: a key that begins another, spellings of one letter, characters that JSON escapes.
HARD = ["dir/file", "dir/file!", "dir/e\u0301", "dir/\u00e9", "dir/\"\\\n\u0001\u2028\U0001f512"]


def write(state, name, signed, signers):
    metadata = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    data = metadata.to_bytes()
    path = OUT / state / "metadata" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return data


def entry(version, data, hashed):
    if not hashed:
        return MetaFile(version)
    return MetaFile.from_data(version, data, ["sha512"])


def state(name, version, roots, consistent=True, hashed=False):
    def file(role, number):
        stem = quote(role, "")
        return f"{number}.{stem}.json" if consistent else f"{stem}.json"

    for root, signers in roots:
        write(name, f"{root.version}.root.json", root, signers)
    target = TargetFile.from_data("dir/file one.txt", CONTENT, ["sha256"])
    digest = target.hashes["sha256"]
    stored = f"{digest}.file one.txt" if consistent else "file one.txt"
    path = OUT / name / "targets" / "dir" / stored
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)

    signer = CryptoSigner.generate_ed25519()
    listed = {path: TargetFile.from_data(path, CONTENT, ["sha256"]) for path in [target.path, *HARD]}
    delegated = Targets(version=version, expires=EXPIRES, targets=listed)
    key = signer.public_key
    role = DelegatedRole(DELEGATE, [key.keyid], 1, True, paths=["dir/*"])
    targets = Targets(
        version=version, expires=EXPIRES, delegations=Delegations({key.keyid: key}, {DELEGATE: role})
    )
    snapshot = Snapshot(version=version, expires=EXPIRES)
    for who, signed, signers in [(DELEGATE, delegated, [signer]), ("targets", targets, SIGNERS["targets"])]:
        data = write(name, file(who, version), signed, signers)
        snapshot.meta[f"{who}.json"] = entry(version, data, hashed)
    data = write(name, file("snapshot", version), snapshot, SIGNERS["snapshot"])
    timestamp = Timestamp(version=version, expires=EXPIRES, snapshot_meta=entry(version, data, hashed))
    write(name, "timestamp.json", timestamp, SIGNERS["timestamp"])


def root(version, consistent=True):
    root = Root(version=version, expires=EXPIRES, consistent_snapshot=consistent)
    for role, signers in SIGNERS.items():
        for signer in signers:
            root.add_key(signer.public_key, role)
        root.roles[role].threshold = len(signers)
    return root


first = (root(1), SIGNERS["root"])
state("first", 1, [first])
# Every key of every role changes; root 2 is signed by old and new keys.
old = SIGNERS["root"]
SIGNERS = {role: [CryptoSigner.generate_ed25519()] for role in SIGNERS}
second = (root(2), old + SIGNERS["root"])
state("rotated", 2, [first, second], hashed=True)
third = (root(3, consistent=False), SIGNERS["root"])
state("plain", 3, [first, second, third], consistent=False)
