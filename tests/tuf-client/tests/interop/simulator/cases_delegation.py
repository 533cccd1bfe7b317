"""Who is asked for a target, and in which order (TUF 1.0.34 §5.6.7; TAP 15 for shares of all paths)."""

from urllib.parse import quote

from tuf.api.metadata import SuccinctRoles

from repository import document, expires, key, keyid
from stage import case, cases

NOBODY = "x/nobody"


def graph(repository, text):
    """`a>b` delegates everything below one folder, `a>b!` terminates, `a>b:PATTERN` delegates that."""
    roles = []
    for edge in text.split():
        edge, _, pattern = edge.partition(":")
        parent, role = edge.rstrip("!").split(">")
        repository.delegate(parent, role, [pattern or "x/*"], edge.endswith("!"))
        roles += [role] if role not in roles else []
    repository.publish_all(*roles)


# Graph, target, who is asked.
GRAPHS = [
    ("targets>A", NOBODY, "A"),
    ("targets>A targets>B targets>C", NOBODY, "A B C"),
    ("targets>C targets>B targets>A", NOBODY, "C B A"),
    # The whole branch of one before the next one.
    ("targets>A targets>B A>C A>D", NOBODY, "A C D B"),
    ("targets>A targets>B A>C C>D D>E B>F", NOBODY, "A C D E B F"),
    # Paths.
    ("targets>A:y/* targets>B A>C", NOBODY, "B"),
    ("targets>A targets>B A>C:x/*.py C>D", NOBODY, "A B"),
    ("targets>A:x/nobod? targets>B:x/* targets>C:*", NOBODY, "A B"),
    ("targets>A:* targets>B:*/* targets>C:*/*/*", NOBODY, "B"),
    ("targets>A:x/* targets>B:x/*/* targets>C:x*", "x/y/nobody", "B"),
    ("targets>A:x/NOBODY targets>B:x/nobody targets>C:x/n*y", NOBODY, "B C"),
    ("targets>A:x/*b*d* targets>B:x/*d*b*", NOBODY, "A"),
    # Terminating: nobody after it, here and further up; whom it trusts itself is asked.
    ("targets>A! targets>B", NOBODY, "A"),
    ("targets>A targets>B A>C! A>D", NOBODY, "A C"),
    ("targets>A targets>B A>C! C>D C>E A>F", NOBODY, "A C D E"),
    ("targets>A!:y/* targets>B", NOBODY, "B"),
    ("targets>A targets>B! targets>C A>D", NOBODY, "A D B"),
    # Cycles and several ways to one role.
    ("targets>A A>A", NOBODY, "A"),
    ("targets>A A>B B>C C>A C>D", NOBODY, "A B C D"),
    ("targets>A targets>B A>C B>C", NOBODY, "A C B"),
    ("targets>A targets>B A>C:x/*.py B>C", NOBODY, "A B C"),
    ("targets>A targets>B A>B B>A", NOBODY, "A B"),
]


@cases(GRAPHS)
def roles_are_asked_in_the_order_of_trust(stage, text, target, visited):
    stage.init()
    graph(stage.repository, text)
    stage.gets_not(target, because="not-released")
    assert stage.asked()[4:] == [f"1.{role}.json" for role in visited.split()]
    # All of them are stored now: nobody is asked twice.
    stage.gets_not(target)
    assert stage.asked() == ["2.root.json", "timestamp.json"]


TREE = "targets>A:*.doc targets>A2:*.md targets>B:releases/*/* B>C:releases/x/* B>D:releases/y/*.zip"


@cases([
    ("top", "targets", ""), ("README.md", "A2", "A2"), ("releases/x/1", "C", "B C"), ("releases/y/1.zip", "D", "B D"),
])
def a_target_is_found_through_those_who_are_trusted_for_it(stage, path, role, visited):
    stage.init()
    repository = stage.repository
    repository.hashes = ("sha256",)
    graph(repository, TREE)
    repository.add(role, path, b"content")
    repository.publish_all(*[] if role == "targets" else [role])
    stage.gets(path)
    assert [name.split(".")[1] for name in stage.asked()[4:]] == visited.split()
    assert stage.downloaded() == [b"content"]


@cases([("releases/z/1.zip", "D", "B"), ("README.doc", "A2", "A"), ("other", "A", "")])
def what_a_role_lists_beyond_its_paths_is_nowhere(stage, path, role, visited):
    stage.init()
    graph(stage.repository, TREE)
    stage.repository.add(role, path, b"content")
    stage.repository.publish_all(role)
    stage.gets_not(path, because="not-released")
    assert [name.split(".")[1] for name in stage.asked()[4:]] == visited.split()


@cases(["chain", "fan"])
def so_many_roles_are_asked_and_no_more(stage, shape):
    repository = stage.repository
    stage.init()
    signers = [repository.signer()]
    for number in range(40):
        repository.docs[f"r{number}"] = document("targets", targets={})
        repository.signers[f"r{number}"] = signers
        parent = f"r{number - 1}" if shape == "chain" and number else "targets"
        repository.delegate(parent, f"r{number}")
    repository.publish_all(*[f"r{number}" for number in range(40)])
    stage.gets_not("nobody", because="not-released")
    assert stage.asked()[4:] == [f"1.r{number}.json" for number in range(32)]


@cases([
    "?", "#", "/a", "../a", "..", ".", "a b", "é", "%2F", "%", "a\\b", "a\nb", "a.b.json", "~a_-", "1.root", "*", "a:b", '"',
    "root.json",
])
def a_role_may_have_any_name_and_stays_one_file(stage, role):
    repository = stage.repository
    repository.delegate("targets", role)
    repository.add(role, "x", b"x")
    repository.publish_all(role)
    stage.init().gets("x")
    assert stage.asked()[4:] == [f"1.{quote(role, '')}.json"]
    assert len(list(stage.metadata.glob("*.json"))) == 5
    assert sorted(path.name for path in stage.folder.iterdir()) == ["initial", "metadata", "targets"]
    stage.gets("x")


@cases(["root", "timestamp", "snapshot", "targets", ""])
def a_role_of_the_root_is_delegated_to_nobody(stage, role):
    repository = stage.repository
    repository.delegate("targets", "a")
    repository.docs["targets"]["delegations"]["roles"][0]["name"] = role
    repository.publish_all()
    stage.init().refuses(because="metadata-invalid")
    stage.trusted(root=1, timestamp=2, snapshot=2)


def role(repository):
    return repository.docs["targets"]["delegations"]["roles"][0]


@cases([
    ("no paths", lambda repository: role(repository).pop("paths")),
    ("paths in two ways", lambda repository: role(repository).update(path_hash_prefixes=["00"])),
    ("the same name twice", lambda repository: repository.delegate("targets", "a")),
    ("a threshold of nobody", lambda repository: role(repository).update(threshold=0)),
    ("a key twice", lambda repository: role(repository).update(keyids=["x", "x"])),
])
def a_delegation_that_makes_no_sense_is_refused(stage, _, spoil):
    stage.repository.delegate("targets", "a")
    spoil(stage.repository)
    stage.repository.publish_all("a")
    stage.init().refuses(because="metadata-invalid")


@cases([
    ("its file is missing", lambda repository: repository.files.pop("1.a.json"), "unreachable"),
    ("nobody signed it", lambda repository: repository.put("a", repository.sign("a", [])), "threshold-not-met"),
    ("a stranger signed it", lambda repository: repository.put(
        "a", repository.sign("a", [repository.signer()])), "threshold-not-met"),
    ("it is malformed", lambda repository: repository.put("a", b"{}"), "metadata-invalid"),
    ("it is no targets file", lambda repository: repository.put("a", repository.sign("snapshot")), "metadata-invalid"),
    ("it has expired", lambda repository: (
        repository.docs["a"].update(expires=expires(-1)), repository.put("a", repository.sign("a"))), "metadata-expired"),
    ("its key is not there", lambda repository: (
        repository.docs["targets"]["delegations"]["keys"].pop(keyid(repository.signers["a"][0])),
        repository.publish("targets", "snapshot", "timestamp")), "threshold-not-met"),
])
def a_rogue_delegate_stops_its_own_paths_and_no_others(stage, _, spoil, because):
    repository = stage.repository
    repository.delegate("targets", "a", ["a/*"])
    repository.delegate("targets", "b", ["b/*"])
    repository.add("a", "a/x", b"a")
    repository.add("b", "b/x", b"b")
    # What it was not given it is never asked for.
    repository.add("a", "b/x", b"rogue")
    repository.publish_all("a", "b")
    spoil(repository)
    stage.current()
    stage.gets_not("a/x", because=because)
    repository.artifacts["b/x"] = b"b"
    stage.gets("b/x")
    assert stage.downloaded() == [b"b"]
    assert stage.stored("a") is None


@case()
def a_delegate_that_no_snapshot_lists_is_not_believed(stage):
    repository = stage.repository
    repository.delegate("targets", "a")
    repository.publish_all("a")
    del repository.docs["snapshot"]["meta"]["a.json"]
    repository.publish("snapshot", "timestamp")
    stage.current()
    stage.gets_not("x", because="metadata-invalid")


@case()
def a_path_may_be_trusted_by_its_hash(stage):
    repository = stage.repository
    # SHA-256 of `x` begins with 2d711642, of `y` with a1fce436.
    repository.delegate("targets", "other", path_hash_prefixes=["2d711643", "a"])
    repository.delegate("targets", "share", path_hash_prefixes=["00", "2d71"])
    repository.add("share", "x", b"x")
    repository.publish_all("other", "share")
    stage.init().gets("x")
    assert stage.asked()[4:] == ["1.share.json"]
    stage.gets_not("y")
    assert stage.asked()[2:] == ["1.other.json"]


@cases([1, 4, 9, 32])
def equal_shares_of_all_paths_may_be_delegated_at_once(stage, bits):
    repository = stage.repository
    signer = repository.signer()
    shares = SuccinctRoles([keyid(signer)], 1, bits, "bin")
    repository.docs["targets"]["delegations"] = {
        "keys": {keyid(signer): key(signer)}, "succinct_roles": shares.to_dict(),
    }
    name = shares.get_role_for_target("dir/x")
    repository.docs[name] = document("targets", targets={})
    repository.signers[name] = [signer]
    repository.add(name, "dir/x", b"x")
    repository.publish_all(name)
    stage.init().gets("dir/x")
    assert stage.asked()[4:] == [f"1.{name}.json"]


@cases([0, 33, -1, "8"])
def shares_of_no_or_too_many_bits_are_refused(stage, bits):
    repository = stage.repository
    signer = repository.signer()
    repository.docs["targets"]["delegations"] = {
        "keys": {keyid(signer): key(signer)},
        "succinct_roles": {"keyids": [keyid(signer)], "threshold": 1, "bit_length": bits, "name_prefix": "bin"},
    }
    repository.publish_all()
    stage.init().refuses(because="metadata-invalid")
