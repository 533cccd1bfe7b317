"""The folder itself: torn, garbled, incomplete. Whatever is read there, nothing older is believed."""

import json

from stage import case, cases

OURS = "python-tuf takes what it cannot read for absent"


def older(stage):
    """A client that is current, and the files of a server that replays version 1."""
    repository = stage.repository
    old = repository.frozen()
    repository.publish_all("root")
    stage.current()
    return old


def spoilt(data):
    yield b""
    yield data[:1]
    yield data[: len(data) // 2]
    yield data[:-1]
    yield b"\0" * len(data)
    yield data + b"}"
    for at in range(len(data) // 9, len(data), len(data) // 4):
        yield data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


@cases(["root", "timestamp", "snapshot"], only=OURS)
def a_spoilt_file_is_never_taken_for_absence(stage, role):
    old = older(stage)
    path = stage.metadata / f"{role}.json"
    new, whole = stage.repository.files, path.read_bytes()
    for data in spoilt(whole):
        path.write_bytes(data)
        for files in [new, old]:
            stage.repository.files = files
            code = stage.client.refresh()
            # A byte that says nothing leaves the file what it was: then the replay is a rollback.
            assert code == 1 or (files is new and path.read_bytes() == data), data
            assert path.read_bytes() == data
    path.write_bytes(whole)
    stage.repository.files = new
    stage.accepts()
    stage.trusted(root=2, timestamp=2, snapshot=2, targets=2)


@case(only=OURS)
def spoilt_targets_are_fetched_again_and_no_others_than_the_snapshot_names(stage):
    old = older(stage)
    path = stage.metadata / "targets.json"
    whole = path.read_bytes()
    for data in spoilt(whole):
        path.write_bytes(data)
        stage.asked()
        stage.accepts()
        assert path.read_bytes() in (data, whole)
    # The attacker puts the old file there, signed as it is.
    path.write_bytes(old["1.targets.json"])
    stage.accepts()
    assert path.read_bytes() == whole
    stage.repository.files["2.targets.json"] = old["1.targets.json"]
    path.unlink()
    stage.refuses(because="metadata-invalid")


@cases(["timestamp", "snapshot", "targets"])
def a_file_that_is_gone_is_fetched_again(stage, role):
    older(stage)
    (stage.metadata / f"{role}.json").unlink()
    stage.accepts()
    stage.trusted(root=2, timestamp=2, snapshot=2, targets=2)


@case(only=OURS)
def a_folder_without_a_root_leads_nowhere(stage):
    older(stage)
    (stage.metadata / "root.json").unlink()
    stage.asked()
    stage.refuses()
    assert stage.asked() == []


@case(only=OURS)
def what_a_power_cut_left_beside_the_files_is_not_read(stage):
    older(stage)
    for role in ["root", "timestamp", "snapshot", "targets"]:
        (stage.metadata / f"{role}.json.new").write_bytes(b"{")
    stage.accepts()
    stage.trusted(root=2, timestamp=2, snapshot=2, targets=2)


@case(only=OURS)
def another_repository_s_files_are_not_believed(stage):
    """The attacker writes into the folder, but not to the root."""
    other = json.loads(stage.repository.files["timestamp.json"])
    older(stage)
    other["signatures"][0]["sig"] = "00" * 64
    (stage.metadata / "timestamp.json").write_bytes(json.dumps(other).encode())
    stage.refuses(because="state-lost")
