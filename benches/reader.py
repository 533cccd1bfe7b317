"""python-tuf as a reader of one repository on a disk. Answers each line `COMMAND TIMES` with the nanoseconds that it took."""

import shutil
import sys
import time
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

SERVED, STORE, EXPECTED = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
BASE = "disk:///"


class Disk(FetcherInterface):
    def _fetch(self, url):
        try:
            return iter([(SERVED / url.removeprefix(BASE)).read_bytes()])
        except FileNotFoundError as error:
            raise DownloadHTTPError(str(error), 404) from error


def read():
    updater = Updater(str(STORE), BASE, fetcher=Disk(), bootstrap=(SERVED / "1.root.json").read_bytes())
    updater.refresh()
    assert len(updater._trusted_set.targets.targets) == EXPECTED


def clear():
    shutil.rmtree(STORE, ignore_errors=True)
    STORE.mkdir()


clear()
for line in sys.stdin:
    command, times = line.split()
    took = 0
    for _ in range(int(times)):
        if command == "refresh":
            clear()
        start = time.perf_counter_ns()
        read()
        took += time.perf_counter_ns() - start
    print(took, flush=True)
