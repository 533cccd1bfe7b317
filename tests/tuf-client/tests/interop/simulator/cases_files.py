"""The workflow file by file (TUF 1.0.34 §5.2 to §5.6): what is asked for, what is kept, what is refused."""

import json

from repository import TOP, digest, document, key, keyid, signature
from stage import case, cases

STRICTER = "python-tuf reads it in one of two ways"
FIRST = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]


@case()
def a_first_refresh_asks_for_four_files_and_keeps_them_as_they_are(stage):
    stage.current()
    assert stage.asked() == FIRST
    for role in TOP:
        assert stage.stored(role) == stage.repository.files[stage.repository.name(role)]
    stage.trusted(root=1, timestamp=1, snapshot=1, targets=1)


@case()
def a_download_gets_current_first(stage):
    stage.init().gets_not("nobody lists it", because="not-released")
    assert stage.asked() == FIRST
    stage.trusted(root=1, timestamp=1, snapshot=1, targets=1)


@case(only="python-tuf links its root anew")
def an_unchanged_poll_asks_for_two_files_and_writes_nothing(stage):
    stage.current()

    def kept():
        files = [stage.metadata, *sorted(stage.metadata.iterdir())]
        return [(path.name, path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in files]

    stage.asked()
    before = kept()
    for _ in range(3):
        stage.accepts()
        assert stage.asked() == FIRST[:2]
    assert kept() == before


@cases([("timestamp", b" \n"), ("snapshot", b"\n\n\t"), ("targets", b" "), ("root", b"\r\n")])
def a_file_is_kept_byte_for_byte(stage, role, end):
    repository = stage.repository
    repository.publish("root")
    name = repository.name(role)
    repository.files[name] = json.dumps(json.loads(repository.files[name]), indent=5).encode() + end
    stage.init().accepts()
    assert stage.stored(role) == repository.files[name]


def without(field):
    return lambda envelope: envelope["signed"].pop(field)


def with_field(field, value):
    return lambda envelope: envelope["signed"].update({field: value})


def no_signature(envelope):
    envelope["signatures"] = []


def other_signature(envelope):
    envelope["signatures"][0]["sig"] = "00" * 64


@cases([
    ("no version", without("version")), ("no keys", without("keys")), ("no expiry", without("expires")),
    ("version 0", with_field("version", 0)), ("another type", with_field("_type", "targets")),
    ("no signature", no_signature), ("another signature", other_signature), ("no roles", with_field("roles", {})),
])
def an_initial_root_that_is_none_leads_nowhere(stage, _, spoil):
    envelope = json.loads(stage.repository.files["1.root.json"])
    spoil(envelope)
    stage.init(json.dumps(envelope).encode()).refuses()
    assert stage.asked() == []


@cases([(b"",), (b"{",), (b"[]",), (b"\xff\xfe",), (b"null",)])
def an_initial_root_that_is_not_even_json_leads_nowhere(stage, root):
    stage.init(root).refuses(because="state-lost")
    assert stage.asked() == []


UP_TO = [
    ("root", {"root": 1}), ("timestamp", {"root": 2}), ("snapshot", {"root": 2, "timestamp": 2}),
    ("targets", {"root": 2, "timestamp": 2, "snapshot": 2}),
]


@cases(UP_TO)
def what_its_role_did_not_sign_is_refused_and_what_came_before_it_is_kept(stage, role, trusted):
    repository = stage.repository
    repository.signers[role] = []
    repository.publish_all("root")
    stage.init().refuses(because="threshold-not-met")
    stage.trusted(**trusted)


@cases(UP_TO[:1] + UP_TO[2:])
def a_file_under_the_name_of_another_version_is_refused(stage, role, trusted):
    repository = stage.repository
    repository.publish_all("root")
    wrong = {**repository.docs[role], "version": 3}
    repository.files[f"2.{role}.json"] = json.dumps({
        "signed": wrong, "signatures": [signature(wrong, signer) for signer in repository.signers[role]],
    }).encode()
    stage.init().refuses(because="metadata-invalid")
    stage.trusted(**trusted)


@case()
def another_timestamp_with_the_same_version_is_not_taken(stage):
    stage.current()
    repository, kept = stage.repository, stage.stored("timestamp")
    repository.docs["timestamp"]["meta"]["snapshot.json"]["version"] = 100
    repository.put("timestamp", repository.sign("timestamp"))
    stage.asked()
    stage.accepts()
    assert stage.asked() == FIRST[:2]
    assert stage.stored("timestamp") == kept


@cases([
    ("timestamp.json", {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}),
    ("2.snapshot.json", {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1}),
    ("2.targets.json", {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1}),
])
def a_file_that_cannot_be_had_stops_the_refresh_there(stage, name, trusted):
    stage.current()
    stage.repository.publish_all()
    for status in [404, 403, 500, 0]:
        stage.repository.statuses = {name: status}
        stage.asked()
        stage.refuses(because="unreachable")
        assert stage.asked()[-1] == name
        stage.trusted(**trusted)
    stage.repository.statuses = {}
    stage.accepts()


@cases([403, 410, 500, 503, 302, 0], only="python-tuf takes 403 for absence, and tries others again")
def only_absence_ends_the_root_walk(stage, status):
    stage.init()
    stage.repository.statuses = {"2.root.json": status}
    stage.refuses(because="root-unavailable")
    assert stage.asked() == ["2.root.json"]
    stage.trusted(root=1)


@case()
def all_roots_on_the_way_are_walked(stage):
    for _ in range(2, 21):
        stage.repository.publish("root")
    stage.current()
    assert stage.asked()[:20] == [f"{version}.root.json" for version in range(2, 22)]
    stage.trusted(root=20, timestamp=1, snapshot=1, targets=1)


@case()
def a_snapshot_is_no_timestamp_whoever_signs_it(stage):
    repository = stage.repository
    repository.docs["timestamp"] |= {"_type": "snapshot"}
    repository.publish("timestamp", "root")
    stage.init().refuses(because="metadata-invalid")
    stage.trusted(root=2)


@case()
def fields_nobody_knows_are_signed_and_carried_along(stage):
    stage.current()
    repository = stage.repository
    for role in TOP:
        repository.docs[role]["x-new"] = {"b": [1, "é\n\"\\", None, True], "a": {}, "a b": -1}
    repository.root["roles"]["root"]["x-new"] = "value"
    repository.root["keys"][keyid(repository.signers["root"][0])]["x-new"] = {"a": 1}
    repository.root["keys"][keyid(repository.signers["timestamp"][0])]["keyid_hash_algorithms"] = ["md5"]
    repository.docs["snapshot"]["x-new"] |= {"": ""}
    repository.add("targets", "x", b"x")
    repository.docs["targets"]["targets"]["x"]["custom"] = {"any": [{"thing": 7}]}
    repository.publish_all("root")
    stage.accepts()
    stage.trusted(root=2, timestamp=2, snapshot=2, targets=2)
    stage.gets("x")


@cases(["1.0", "1.0.0", "1.99.7"])
def every_version_one_of_the_specification_is_read(stage, version):
    for role in TOP:
        stage.repository.docs[role]["spec_version"] = version
    stage.repository.publish_all("root")
    stage.current()


@cases(["2.0.0", "0.9", "", "one", "1", "1.x", "1.0.0.0", None, 1])
def no_other_version_of_the_specification_is_read(stage, version):
    stage.current()
    stage.repository.docs["timestamp"]["spec_version"] = version
    stage.repository.publish("timestamp")
    stage.refuses(because="metadata-invalid")


@cases(["2099-01-01T00:00:00+00:00", "2099-01-01T00:00:00.5Z", "2099-01-01", "", 4070908800, None])
def a_date_is_utc_in_whole_seconds(stage, date):
    stage.current()
    stage.repository.docs["timestamp"]["expires"] = date
    stage.repository.publish("timestamp")
    stage.refuses(because="metadata-invalid")


@cases([("sha256",), ("sha512",), ("sha256", "sha512")])
def a_parent_may_name_hashes_and_lengths(stage, *hashes):
    stage.repository.hashes = hashes
    stage.repository.publish_all()
    stage.current()
    stage.trusted(root=1, timestamp=2, snapshot=2, targets=2)
    stage.asked()
    stage.accepts()
    assert stage.asked() == FIRST[:2]


@cases([
    ("another hash", {"hashes": {"sha256": digest(b"other")}}),
    ("one right and one wrong hash", {"hashes": {"sha512": "00"}}),
    ("longer", {"length": 1}), ("shorter", {"length": -1}),
])
def a_file_that_its_parent_does_not_name_is_refused(stage, _, wrong):
    repository = stage.repository
    repository.hashes = ("sha256",)
    stage.current()
    for role, parent in [("targets", "snapshot"), ("snapshot", "timestamp")]:
        repository.publish("targets", "snapshot")
        said = repository.docs[parent]["meta"][f"{role}.json"]
        said["hashes"] = said["hashes"] | wrong.get("hashes", {})
        said["length"] += wrong.get("length", 0)
        repository.publish(*["snapshot", "timestamp"][parent == "timestamp":])
        stage.refuses()
        version = repository.docs[role]["version"]
        assert json.loads(stage.stored(role))["signed"]["version"] < version


@case()
def a_hash_of_a_kind_that_nobody_knows_proves_nothing(stage):
    repository = stage.repository
    stage.current()
    repository.publish("targets")
    repository.docs["snapshot"]["meta"]["targets.json"]["hashes"] = {"sha-1000": "00"}
    repository.publish("snapshot", "timestamp")
    stage.refuses(because="metadata-invalid")


@cases([
    ("a key twice", lambda text: text.replace(b'"version": 2', b'"version": 1,\n  "version": 2')),
    ("a fraction", lambda text: text.replace(b'"version": 2', b'"version": 2.0')),
    ("an exponent", lambda text: text.replace(b'"version": 2', b'"version": 2e0')),
    ("something after the end", lambda text: text + b"x"),
    ("a byte order mark", lambda text: b"\xef\xbb\xbf" + text),
    ("another encoding", lambda text: text.replace(b"timestamp", b"timestamp\xff")),
    ("deep nesting", lambda text: text.replace(b'"signed"', b'"x": ' + b"[" * 100 + b"]" * 100 + b', "signed"', 1)),
], only=STRICTER)
def json_that_two_readers_read_differently_is_refused(stage, _, spoil):
    stage.current()
    repository = stage.repository
    repository.publish("timestamp")
    repository.files["timestamp.json"] = spoil(repository.files["timestamp.json"])
    stage.refuses(because="metadata-invalid")
    stage.trusted(root=1, timestamp=1, snapshot=1, targets=1)


@cases([False, True])
def a_file_without_end_is_given_up(stage, endless):
    stage.current()
    repository = stage.repository
    repository.publish("timestamp")
    repository.statuses["endless"] = endless
    repository.files["timestamp.json"] += b" " * (1 << 20)
    stage.refuses(because="unreachable")


@case()
def a_snapshot_drops_nothing(stage):
    repository = stage.repository
    repository.delegate("targets", "a")
    repository.publish_all("a")
    stage.current()
    del repository.docs["snapshot"]["meta"]["a.json"]
    repository.publish("snapshot", "timestamp")
    stage.refuses(because="metadata-rollback")
    stage.trusted(root=1, timestamp=3, snapshot=2, targets=2)


@case()
def what_a_snapshot_lists_no_longer_may_not_be_the_targets(stage):
    repository = stage.repository
    repository.docs["snapshot"]["meta"] = {"x.json": {"version": 1}}
    repository.publish("snapshot", "timestamp")
    stage.init().refuses(because="metadata-invalid")


@case()
def files_have_plain_names_without_consistent_snapshots(stage):
    repository = stage.repository
    repository.root["consistent_snapshot"] = False
    repository.delegate("targets", "a/b")
    repository.add("a/b", "x", b"x")
    repository.publish_all("root", "a/b")
    stage.init().gets("x")
    assert stage.asked() == [
        "2.root.json", "3.root.json", "timestamp.json", "snapshot.json", "targets.json", "a%2Fb.json",
    ]
    assert repository.fetched == ["x"]
    assert stage.downloaded() == [b"x"]


@case()
def a_root_without_the_field_has_plain_names(stage):
    repository = stage.repository
    del repository.root["consistent_snapshot"]
    repository.publish_all("root")
    stage.current()
    assert stage.asked()[3:] == ["snapshot.json", "targets.json"]


@case()
def a_role_that_is_no_role_of_a_root_gives_nobody_power(stage):
    repository = stage.repository
    stranger = repository.signer()
    repository.root["keys"]["x"] = key(stranger)
    repository.docs["timestamp"] |= document("timestamp", meta=repository.docs["timestamp"]["meta"])
    repository.signers["timestamp"] = [stranger]
    repository.publish_all("root")
    stage.init().refuses(because="threshold-not-met")
