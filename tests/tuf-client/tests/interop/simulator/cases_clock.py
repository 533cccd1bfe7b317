"""Expiry (TUF 1.0.34 §5.3.10, §5.4.4, §5.5.6, §5.6.5), and clocks that are wrong: `faketime` sets the program's clock."""

from datetime import datetime, timedelta, timezone

from repository import expires
from stage import CLOCK, case, cases


def day(number):
    """The clock, so many days from now, as `faketime` reads it."""
    return f"{datetime.now(timezone.utc) + timedelta(days=number)}"


EXPIRED = [
    ("root", {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1}),
    ("timestamp", {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1}),
    ("snapshot", {"root": 2, "timestamp": 2, "snapshot": 1, "targets": 1}),
    ("targets", {"root": 2, "timestamp": 2, "snapshot": 2, "targets": 1}),
]


@cases(EXPIRED)
def what_has_expired_is_not_taken(stage, role, trusted):
    stage.current()
    stage.repository.docs[role]["expires"] = expires(-1)
    stage.repository.publish_all("root")
    stage.refuses(because="metadata-expired")
    stage.trusted(**trusted)


@case()
def an_expired_root_on_the_way_is_walked_over(stage):
    repository = stage.repository
    repository.root["expires"] = expires(-3)
    repository.publish("root")
    repository.root["expires"] = expires(3)
    repository.publish("root")
    stage.current()
    stage.trusted(root=3, timestamp=1, snapshot=1, targets=1)


@cases(["root", "timestamp", "snapshot", "targets"], needs=CLOCK)
def what_was_trusted_expires_where_it_lies(stage, role):
    repository = stage.repository
    repository.docs[role]["expires"] = expires(7)
    repository.publish_all("root")
    stage.current()
    stage.accepts(at=day(6))
    stage.refuses(at=day(8), because="metadata-expired")
    # The clock was wrong: nothing is lost.
    stage.accepts()
    stage.asked()
    stage.accepts(at=day(6))
    assert stage.asked() == ["3.root.json", "timestamp.json"]


@cases(["timestamp", "snapshot", "targets"], needs=CLOCK)
def what_has_expired_here_is_replaced_by_what_has_not(stage, role):
    repository = stage.repository
    repository.docs[role]["expires"] = expires(7)
    repository.publish_all()
    stage.current()
    repository.docs[role]["expires"] = expires(21)
    repository.publish_all()
    stage.accepts(at=day(18))
    stage.trusted(root=1, timestamp=3, snapshot=3, targets=3)


@case(needs=CLOCK)
def an_expired_timestamp_here_is_a_floor_all_the_same(stage):
    repository = stage.repository
    repository.docs["timestamp"]["expires"] = expires(7)
    repository.publish("timestamp")
    stage.current()
    repository.docs["timestamp"]["expires"] = expires(21)
    repository.back("timestamp")
    stage.refuses(at=day(18), because="metadata-rollback")


@case(needs=CLOCK)
def a_delegate_expires_and_is_replaced_alone(stage):
    repository = stage.repository
    repository.delegate("targets", "a", ["a/*"])
    repository.docs["a"]["expires"] = expires(7)
    repository.add("a", "a/x", b"x")
    repository.add("a", "a/y", b"y")
    repository.publish_all("a")
    stage.init()
    stage.gets("a/x")
    stage.asked()
    stage.gets_not("a/y", at=day(18), because="metadata-expired")
    assert stage.asked() == ["2.root.json", "timestamp.json"]
    assert stage.downloaded() == [b"x"]
    stage.accepts(at=day(18))
    repository.docs["a"]["expires"] = expires(21)
    repository.publish("a", "snapshot", "timestamp")
    stage.gets("a/y", at=day(18))
    assert stage.downloaded() == [b"x", b"y"]


@case(needs=CLOCK)
def a_clock_in_another_year_stops_nothing_for_ever(stage):
    stage.current()
    for at in ["2100-01-01 00:00:00+00:00", "2038-01-19 03:14:08+00:00"]:
        stage.refuses(at=at, because="metadata-expired")
        stage.accepts()
    # Expiry needs a clock; signatures and versions do not.
    for at in ["1970-01-02 00:00:00+00:00", "2025-02-09 09:17:23+00:00"]:
        stage.repository.publish_all()
        stage.accepts(at=at)
    stage.trusted(root=1, timestamp=3, snapshot=3, targets=3)
