"""Who signs (TUF 1.0.34 §4.2, §5.3.4): kinds of keys, thresholds, duplicates, rotations."""

import json
import random

from repository import ED25519, OTHERS, TOP, key, keyid, signature
from stage import case, cases

LESS = "python-tuf knows more kinds"
STRICTER = "python-tuf counts key ids, not keys"


def require(repository, signer, **fields):
    """A root that needs this signer too."""
    repository.trust("root", [*repository.signers["root"], signer], 2)
    repository.root["keys"][keyid(signer)] |= fields


@cases([
    ("rsa", "rsassa-pss-sha256"), ("ecdsa", "ecdsa-sha2-nistp256"), ("ed25519", "ed25519"),
])
def a_key_of_each_kind_signs_and_a_wrong_signature_of_its_kind_does_not(stage, keytype, scheme):
    repository, signer = stage.repository, OTHERS[keytype, scheme][0]
    stage.init()
    require(repository, signer)
    repository.publish("root")
    stage.accepts()
    repository.publish("root")
    envelope = repository.sign("root")
    # Well formed, but over something else.
    envelope["signatures"][1]["sig"] = signature({"other": 1}, signer)["sig"]
    repository.put("root", envelope)
    stage.refuses(because="threshold-not-met")
    stage.trusted(root=2, timestamp=1, snapshot=1, targets=1)


@case(only="python-tuf has given the name up")
def an_ecdsa_key_may_be_named_after_its_scheme(stage):
    signer = OTHERS["ecdsa", "ecdsa-sha2-nistp256"][0]
    stage.init()
    require(stage.repository, signer, keytype="ecdsa-sha2-nistp256")
    stage.repository.publish("root")
    stage.accepts()


@case(only=LESS)
def a_padding_that_is_not_listed_verifies_nothing(stage):
    stage.init()
    require(stage.repository, OTHERS["rsa", "rsa-pkcs1v15-sha256"][0])
    stage.repository.publish("root")
    stage.refuses(because="threshold-not-met")


@cases([("ed25519", "ecdsa-sha2-nistp256"), ("ecdsa", "ed25519"), ("rsa", "ed25519"), ("ml-dsa-65", "ml-dsa-65")])
def a_key_verifies_nothing_under_another_kind(stage, keytype, scheme):
    stage.init()
    require(stage.repository, stage.repository.signer(), keytype=keytype, scheme=scheme)
    stage.repository.publish("root")
    stage.refuses(because="threshold-not-met")


@case(only="python-tuf cannot read a root that names them")
def keys_of_kinds_that_nobody_knows_stand_beside_others(stage):
    repository = stage.repository
    new = {"keytype": "ml-dsa-65", "scheme": "ml-dsa-65", "keyval": {"public": "00", "x": "y"}}
    for role in TOP:
        repository.root["keys"][f"new {role}"] = new
        repository.root["roles"][role]["keyids"].append(f"new {role}")
    repository.put("root", repository.sign("root"))
    repository.publish("root")
    for name in ["2.root.json", "timestamp.json"]:
        envelope = json.loads(repository.files[name])
        envelope["signatures"].append({"keyid": "new root", "sig": "abcd"})
        repository.files[name] = json.dumps(envelope).encode()
    stage.current()


@case()
def a_key_id_is_a_name_and_nothing_else(stage):
    repository = stage.repository
    for role in TOP:
        signer = repository.signers[role][0]
        name = f"the key of {role} é/.."
        repository.root["keys"][name] = key(signer)
        repository.root["roles"][role]["keyids"] = [name]
    old = repository.signers

    def named(role):
        envelope = repository.sign(role)
        for one in envelope["signatures"]:
            one["keyid"] = f"the key of {role} é/.."
        return envelope

    repository.root["version"] = 2
    envelope = named("root")
    envelope["signatures"].append(signature(repository.root, old["root"][0]))
    repository.put("root", envelope)
    for role in ["targets", "snapshot", "timestamp"]:
        repository.put(role, named(role))
    stage.current()
    stage.trusted(root=2, timestamp=1, snapshot=1, targets=1)


@case(only=STRICTER)
def one_key_under_two_ids_counts_once(stage):
    repository = stage.repository
    signer = repository.signers["snapshot"][0]
    repository.root["keys"]["twin"] = key(signer)
    repository.root["roles"]["snapshot"] = {"keyids": [keyid(signer), "twin"], "threshold": 2}
    repository.publish("targets", "snapshot")
    envelope = repository.sign("snapshot")
    envelope["signatures"].append({**envelope["signatures"][0], "keyid": "twin"})
    repository.put("snapshot", envelope)
    repository.publish("timestamp", "root")
    stage.init().refuses(because="threshold-not-met")


@cases(TOP)
def a_key_id_signs_once_even_where_once_is_enough(stage, role):
    repository = stage.repository
    repository.publish_all("root")
    envelope = repository.sign(role)
    envelope["signatures"] *= 2
    repository.put(role, envelope)
    stage.init().refuses(because="metadata-invalid")


@cases([1, 2, 9])
def a_role_names_a_key_once(stage, times):
    repository = stage.repository
    keys = repository.root["roles"]["snapshot"]
    keys["keyids"] += keys["keyids"] * times
    keys["threshold"] = times
    repository.publish_all("root")
    stage.init().refuses(because="metadata-invalid")
    stage.trusted(root=1)


@cases([0, -1, 1.5, "1", None])
def a_threshold_is_a_positive_number(stage, threshold):
    repository = stage.repository
    repository.root["roles"]["timestamp"]["threshold"] = threshold
    repository.docs["timestamp"]["version"] = 1
    # A fraction cannot be encoded, so it cannot be signed either.
    signed = [] if threshold == 1.5 else None
    repository.root["version"] = 2
    repository.put("root", repository.sign("root", signed))
    stage.init().refuses(because="metadata-invalid")


@cases(["", "00", "not hexadecimal", "é"])
def a_signature_that_is_none_does_not_spoil_one_that_is(stage, spoilt):
    repository = stage.repository
    second = repository.signer()
    repository.trust("timestamp", [repository.signers["timestamp"][0], second])
    repository.publish("timestamp", "root")
    envelope = repository.sign("timestamp")
    envelope["signatures"][0]["sig"] = spoilt
    repository.put("timestamp", envelope)
    stage.current()
    envelope["signatures"][1]["sig"] = spoilt
    repository.docs["timestamp"]["version"] += 1
    repository.put("timestamp", {**envelope, "signed": repository.docs["timestamp"]})
    stage.refuses(because="threshold-not-met")


@case()
def a_threshold_that_no_keys_reach_is_met_by_nobody(stage):
    repository = stage.repository
    stage.current()
    repository.rotate("snapshot", 5, 6)
    repository.publish("root", "snapshot", "timestamp")
    stage.refuses(because="threshold-not-met")
    assert json.loads(stage.stored("snapshot"))["signed"]["version"] == 1
    assert json.loads(stage.stored("root"))["signed"]["version"] == 2


@case()
def a_key_of_the_root_signs_for_no_other_role(stage):
    repository = stage.repository
    repository.publish_all("root")
    for role in ["timestamp", "snapshot", "targets"]:
        good = repository.files[repository.name(role)]
        repository.put(role, repository.sign(role, repository.signers["root"]))
        stage = stage if stage.stored("root") else stage.init()
        stage.refuses(because="threshold-not-met")
        repository.files[repository.name(role)] = good


def walks(count, seed):
    """Random sequences of roots. Each step: keys, threshold, who signs. All but the last are as they should be."""
    chance = random.Random(seed)
    for _ in range(count):
        steps, keys, threshold = [], chance.sample(range(8), chance.randint(1, 5)), 0
        for step in range(chance.randint(2, 4)):
            old, needed = keys, threshold
            if step:
                keys = sorted(set(chance.sample(keys, chance.randint(0, len(keys)))) | set(chance.sample(range(8), 2)))
            threshold = chance.randint(1, len(keys))
            signs = set(chance.sample(keys, threshold)) | set(chance.sample(old, needed))
            # Strangers may sign too.
            signs |= set(chance.sample(range(8, 10), chance.randint(0, 2)))
            steps.append((keys, threshold, sorted(signs)))
        if chance.random() < 0.6:
            keys, threshold, signs = steps.pop()
            signs = sorted(set(signs) - set(chance.sample(signs, min(len(signs), 2))))
            steps.append((keys, threshold, signs))
        yield (steps,)


@cases(walks(30, 7))
def a_root_follows_when_both_thresholds_signed_it_and_only_then(stage, steps):
    repository = stage.repository
    repository.files = {name: data for name, data in repository.files.items() if "root" not in name}
    expected, stopped, before = 0, False, ((), 0)
    for number, (keys, threshold, signs) in enumerate(steps, 1):
        repository.trust("root", [ED25519[9 + place] for place in keys], threshold)
        repository.root["version"] = number
        repository.put("root", repository.sign("root", [ED25519[9 + place] for place in signs]))
        agreed = len(set(signs) & set(keys)) >= threshold and len(set(signs) & set(before[0])) >= before[1]
        stopped = stopped or not agreed
        expected, before = (expected if stopped else number), (keys, threshold)
    stage.init()
    if stopped:
        stage.refuses(because="threshold-not-met" if expected else None)
    else:
        stage.accepts()
    assert stage.stored("root") == repository.files[f"{max(expected, 1)}.root.json"]


def panels(count, seed):
    chance = random.Random(seed)
    for number in range(count):
        keys = chance.sample(range(8), chance.randint(1, 5))
        threshold = chance.randint(1, len(keys))
        signs = chance.sample(range(10), chance.randint(0, 7))
        if number % 2:
            signs = sorted(set(signs) | set(chance.sample(keys, threshold)))
        yield (["timestamp", "snapshot", "targets", "delegate"][number % 4], keys, threshold, signs)


@cases(panels(32, 11))
def a_role_is_believed_when_its_threshold_signed_it_and_only_then(stage, role, keys, threshold, signs):
    repository = stage.repository
    stage.current()
    trusted = [ED25519[9 + place] for place in keys]
    if role == "delegate":
        repository.delegate("targets", role)
        repository.signers[role] = trusted
        delegations = repository.docs["targets"]["delegations"]
        delegations["keys"] = {keyid(signer): key(signer) for signer in trusted}
        delegations["roles"][0] |= {"keyids": [keyid(signer) for signer in trusted], "threshold": threshold}
        repository.publish(role)
        repository.add(role, "x", b"x")
    else:
        repository.trust(role, trusted, threshold)
        repository.add("targets", "x", b"x")
    repository.signers[role] = [ED25519[9 + place] for place in signs]
    repository.publish_all("root", *[role] * (role == "delegate"))
    if len(set(signs) & set(keys)) >= threshold:
        stage.gets("x")
        assert stage.stored(role) == repository.files[repository.name(role)]
    else:
        stage.gets_not("x", because="threshold-not-met")
        assert stage.stored(role) != repository.files[repository.name(role)]
