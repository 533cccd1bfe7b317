"""Targets: fetched once, kept only when they are what was signed (TUF 1.0.34 §5.7, §6.2)."""

from repository import digest, quoted
from stage import case, cases

NAMES = "what a file on a disk is called is each client's own affair"


@cases(["file.txt", "a/file.txt", "path/to/a/file.txt"])
def a_target_is_asked_for_by_hash_in_its_folder_and_only_once(stage, path):
    repository = stage.repository
    name = f"{digest(b'content')}.file.txt"
    folder, _, _ = path.rpartition("/")
    asked = f"{folder}/{name}" if folder else name
    repository.add("targets", path, b"content")
    repository.publish_all()
    stage.current()
    assert stage.downloaded() == []
    for _ in range(2):
        stage.gets(path)
        assert repository.fetched == [asked]
        assert stage.downloaded() == [b"content"]


def offer(stage, path, data, algorithms=("sha256",)):
    stage.repository.add("targets", path, data, algorithms)
    stage.repository.publish_all()


@cases([b"malicious", b"malicious and longer", b"mal", b""])
def what_was_not_signed_is_not_kept(stage, malicious):
    repository = stage.repository
    offer(stage, "one", b"legitimat")
    offer(stage, "two", b"the other")
    stage.current()
    stage.gets("one")
    for name in repository.artifacts:
        repository.artifacts[name] = malicious
    stage.gets_not("two", because="digest-mismatch" if len(malicious) <= 9 else None)
    assert stage.downloaded() == [b"legitimat"]
    stage.client.download("one")
    assert stage.downloaded() == [b"legitimat"]


@case()
def a_changed_target_takes_the_place_of_the_one_before(stage):
    stage.init()
    for number in range(4):
        offer(stage, "one", f"version {number}".encode())
        stage.gets("one")
        assert stage.downloaded() == [f"version {number}".encode()]
        # Changed again, but only on the server.
        offer(stage, "one", f"other {number}".encode())
        stage.repository.artifacts[f"{digest(f'other {number}'.encode())}.one"] = b"malicious"
        stage.gets_not("one")
        assert stage.downloaded() == [f"version {number}".encode()]


@case(only=NAMES)
def what_lies_there_counts_by_its_hash_alone(stage):
    offer(stage, "one", b"content")
    stage.init()
    for lying in [b"", b"contenT", b"content and more"]:
        (stage.targets / "one").write_bytes(lying)
        stage.repository.fetched.clear()
        stage.gets("one")
        assert len(stage.repository.fetched) == 1
        assert stage.downloaded() == [b"content"]


@cases([("sha256",), ("sha512",), ("sha256", "sha512")])
def any_known_hash_serves(stage, *algorithms):
    offer(stage, "one", b"content", algorithms)
    stage.init().gets("one")
    assert stage.repository.fetched[0] in [f"{digest(b'content', name)}.one" for name in algorithms]
    assert stage.downloaded() == [b"content"]


@cases([
    ("a hash nobody knows", {"sha-1000": digest(b"content")}), ("no hash", {}),
    ("a second hash that is wrong", {"sha256": digest(b"content"), "sha512": digest(b"content")}),
    ("a wrong spelling", {"sha256": digest(b"content").upper()}),
])
def a_target_whose_hashes_do_not_show_that_it_is_itself_is_not_taken(stage, _, hashes):
    offer(stage, "one", b"content")
    stage.repository.docs["targets"]["targets"]["one"]["hashes"] = hashes
    for value in hashes.values():
        stage.repository.artifacts[f"{value}.one"] = b"content"
    stage.repository.publish_all()
    stage.init()
    stage.gets_not("one")
    assert stage.downloaded() == []


@case()
def an_empty_target_is_one(stage):
    offer(stage, "one", b"")
    stage.init().gets("one")
    assert stage.downloaded() == [b""]


@case(only="python-tuf is asked for one target at a time")
def several_targets_are_fetched_in_the_order_they_are_named_in(stage):
    for name in ["a", "b", "c"]:
        offer(stage, name, name.encode())
    stage.init().gets("c", "a", "b", "c")
    assert [name[-1] for name in stage.repository.fetched] == ["c", "a", "b"]
    assert sorted(stage.downloaded()) == [b"a", b"b", b"c"]
    assert stage.asked() == ["2.root.json", "timestamp.json", "4.snapshot.json", "4.targets.json"]
    # The first one that is nowhere ends it.
    stage.repository.fetched.clear()
    stage.gets_not("nowhere", "a", because="not-released")


@cases([
    "a b", "é/ü", "%41", "x?y#z", "../up", "../../up", "/abs", "a//b", "a\\b", ".", "..", "a/..", "-x", "--help", "a\nb", "&=+;,@:$!'()*",
], only=NAMES)
def a_target_may_have_any_name_and_lies_where_it_belongs(stage, path):
    repository = stage.repository
    repository.add("targets", path, b"content")
    folder, slash, name = path.rpartition("/")
    repository.publish_all()
    stage.init().gets(path)
    assert repository.fetched == [quoted(f"{folder}{slash}{digest(b'content')}.{name}")]
    assert [file.read_bytes() for file in stage.targets.iterdir()] == [b"content"]
    assert sorted(file.name for file in stage.folder.iterdir()) == ["initial", "metadata", "targets"]
