"""Older versions (TUF 1.0.34 §5.4.3, §5.5.5, §5.3.11): refused, and recovered from when an attacker went to the last version."""

import json

from stage import case, cases

HASHED = [((),), (("sha256",),)]


@case()
def an_older_timestamp_is_refused(stage):
    repository = stage.repository
    repository.publish("timestamp")
    stage.current()
    repository.back("timestamp")
    stage.asked()
    stage.refuses(because="metadata-rollback")
    assert stage.asked() == ["2.root.json", "timestamp.json"]
    stage.trusted(root=1, timestamp=2, snapshot=1, targets=1)


@cases(HASHED)
def a_timestamp_that_names_an_older_snapshot_is_refused(stage, hashes):
    repository = stage.repository
    stage.init()
    repository.hashes = hashes
    repository.publish("snapshot", "timestamp")
    stage.accepts()
    repository.back("snapshot")
    repository.publish("timestamp")
    stage.asked()
    stage.refuses(because="metadata-rollback")
    assert stage.asked() == ["2.root.json", "timestamp.json"]
    stage.trusted(root=1, timestamp=2, snapshot=2, targets=1)


@cases([(hashes, role) for hashes, in HASHED for role in ["targets", "a"]])
def a_snapshot_that_names_an_older_role_is_refused(stage, hashes, role):
    repository = stage.repository
    repository.delegate("targets", "a")
    repository.publish_all("a")
    stage.init()
    repository.hashes = hashes
    repository.publish_all("a")
    stage.accepts()
    repository.back(role)
    repository.publish("snapshot", "timestamp")
    stage.refuses(because="metadata-rollback")
    stage.trusted(root=1, timestamp=4, snapshot=3, targets=3)


@case()
def a_newer_snapshot_that_no_timestamp_names_is_not_asked_for(stage):
    repository = stage.repository
    stage.current()
    repository.publish("snapshot")
    repository.docs["timestamp"]["meta"]["snapshot.json"]["version"] = 1
    repository.publish("root", "timestamp")
    stage.asked()
    stage.accepts()
    assert stage.asked() == ["2.root.json", "3.root.json", "timestamp.json"]
    stage.trusted(root=2, timestamp=2, snapshot=1, targets=1)


LAST = 2**53


@cases([("timestamp", "timestamp"), ("snapshot", "timestamp"), ("targets", "snapshot")])
def other_keys_bring_a_role_back_from_the_last_version(stage, role, rotated):
    """The attacker holds the keys of one role and goes as far as numbers go."""
    repository = stage.repository
    stage.init()
    repository.docs[role]["version"] = LAST - (role == "timestamp")
    repository.publish(*{"timestamp": ["timestamp"], "snapshot": ["snapshot", "timestamp"]}.get(
        role, ["targets", "snapshot", "timestamp"]))
    stage.accepts()
    assert json.loads(stage.stored(role))["signed"]["version"] == LAST
    # Without another key it stays where it is.
    repository.docs[role]["version"] = 1
    repository.publish_all()
    stage.refuses(because="metadata-rollback")
    repository.rotate(rotated)
    if role == "snapshot":
        repository.rotate("snapshot")
    if role != "timestamp":
        repository.rotate("timestamp")
    repository.publish_all("root")
    stage.accepts()
    assert json.loads(stage.stored(role))["signed"]["version"] < 10


@case()
def hiding_a_root_gives_a_stolen_key_no_power_again(stage):
    """The attacker holds a timestamp key that was rotated out, and serves the repository as it was before."""
    repository = stage.repository
    stage.current()
    old, stolen = repository.frozen(), repository.signers["timestamp"]
    repository.rotate("timestamp")
    repository.publish_all("root")
    stage.accepts()
    repository.files = dict(old)
    repository.docs["timestamp"]["version"] = 9
    repository.put("timestamp", repository.sign("timestamp", stolen))
    stage.refuses(because="threshold-not-met")
    stage.trusted(root=2, timestamp=2, snapshot=2, targets=2)


@case()
def an_old_repository_replayed_whole_is_refused(stage):
    repository = stage.repository
    old = repository.frozen()
    repository.publish_all("root")
    stage.current()
    repository.files = old
    stage.refuses(because="metadata-rollback")
    stage.trusted(root=2, timestamp=2, snapshot=2, targets=2)
