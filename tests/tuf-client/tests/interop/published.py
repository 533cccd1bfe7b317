"""Reads a release repository that was published with Redan's own tools: every file a snapshot lists, believed by its parent's keys."""

import sys
from pathlib import Path

from tuf.api.metadata import Metadata, Root, Snapshot, Targets

folder = Path(sys.argv[1])


def newest(role):
    versions = [int(path.name.split(".")[0]) for path in folder.glob(f"*.{role}.json")]
    return max(versions)


def read(role, version, kind):
    data = (folder / f"{version}.{role}.json").read_bytes()
    metadata = Metadata[kind].from_bytes(data)
    assert metadata.signed.version == version, role
    return data, metadata


_, root = read("root", 1, Root)
root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
for version in range(2, newest("root") + 1):
    _, new = read("root", version, Root)
    root.signed.verify_delegate("root", new.signed_bytes, new.signatures)
    new.signed.verify_delegate("root", new.signed_bytes, new.signatures)
    root = new
_, snapshot = read("snapshot", newest("snapshot"), Snapshot)
root.signed.verify_delegate("snapshot", snapshot.signed_bytes, snapshot.signatures)
listed = snapshot.signed.meta
data, top = read("targets", listed["targets.json"].version, Targets)
root.signed.verify_delegate("targets", top.signed_bytes, top.signatures)
listed["targets.json"].verify_length_and_hashes(data)
for name, meta in listed.items():
    role = name.removesuffix(".json")
    if role != "targets":
        data, delegated = read(role, meta.version, Targets)
        meta.verify_length_and_hashes(data)
        top.signed.verify_delegate(role, delegated.signed_bytes, delegated.signatures)
        for path in delegated.signed.targets:
            print(path)
