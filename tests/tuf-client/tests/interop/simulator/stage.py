"""A client, a repository and a server between them; what a case asks of them."""

import json
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.ngclient import Updater

from repository import Repository

FAKETIME = shutil.which("faketime")
CASES = []
CLOCK = "clock"
STAGES = {}


def case(only=None, needs=None):
    """A case: a function of a stage, named by what it holds. `only`: why python-tuf is not asked as well."""
    return cases([()], only, needs)


def cases(table, only=None, needs=None):
    """The same, once for each row."""
    def register(function):
        for row in table:
            row = row if isinstance(row, tuple) else (row,)
            name = function.__name__ + (f" {[value for value in row if not callable(value)]}" if row else "")
            CASES.append((name, lambda stage, row=row: function(stage, *row), only, needs))
        return function
    return register


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        _, stage, kind, name = self.path.split("/", 3)
        repository = STAGES[stage].repository
        if kind == "metadata":
            repository.asked.append(name)
            data = repository.files.get(name)
        else:
            repository.fetched.append(name)
            data = repository.artifacts.get(name)
        status = repository.statuses.get(name, 200 if data is not None else 404)
        if status == 0:
            return
        if status != 200:
            self.send_error(status)
            return
        self.send_response(200)
        # Without a length: a client has to notice by itself that it was enough.
        if not repository.statuses.get("endless"):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, *_):
        """A client that hangs up is its own affair."""


SERVER = Server(("127.0.0.1", 0), Handler)
URL = f"http://127.0.0.1:{SERVER.server_address[1]}"


def serve():
    threading.Thread(target=SERVER.serve_forever, daemon=True).start()


class Ours:
    """The program, a fresh process each time."""

    program = None

    def __init__(self, stage):
        self.stage = stage
        self.said = ""

    def run(self, *arguments, at=None):
        command = [self.program, "--metadata-dir", str(self.stage.metadata), *arguments]
        if at is not None:
            command = [FAKETIME, at, *command]
        ran = subprocess.run(command, capture_output=True, timeout=60)
        self.said = ran.stderr.decode()
        # Exactly these two: a signal or a usage error is neither.
        assert ran.returncode in (0, 1), (ran.returncode, self.said)
        return ran.returncode

    def init(self, root):
        return self.run("init", str(root))

    def refresh(self, at=None):
        return self.run("--metadata-url", self.stage.url("metadata"), "refresh", at=at)

    def download(self, *paths, at=None):
        names = [argument for path in paths for argument in ("--target-name", path)]
        return self.run(
            "--metadata-url", self.stage.url("metadata"), *names, "--target-dir", str(self.stage.targets),
            "--target-base-url", self.stage.url("targets"), "download", at=at,
        )


class PythonTuf:
    """The reference implementation: does it agree with what a case expects of ours?"""

    def __init__(self, stage):
        self.stage = stage
        self.said = ""

    def init(self, root):
        shutil.copy(root, self.stage.metadata / "root.json")
        return 0

    def refresh(self):
        return self.attempt(lambda updater: updater.refresh())

    def download(self, path):
        def get(updater):
            target = updater.get_targetinfo(path)
            if target is None:
                raise ValueError("not listed")
            if updater.find_cached_target(target) is None:
                updater.download_target(target)
        return self.attempt(get)

    def attempt(self, work):
        try:
            work(Updater(str(self.stage.metadata), self.stage.url("metadata"), str(self.stage.targets),
                         self.stage.url("targets"), bootstrap=None))
        except (RepositoryError, DownloadError, ValueError, OSError) as error:
            self.said = repr(error)
            return 1
        return 0


class Stage:
    def __init__(self, number, folder, client):
        self.id, self.folder = str(number), Path(folder)
        self.metadata, self.targets = self.folder / "metadata", self.folder / "targets"
        self.metadata.mkdir()
        self.targets.mkdir()
        self.repository = Repository()
        self.client = client(self)
        STAGES[self.id] = self

    def url(self, kind):
        return f"{URL}/{self.id}/{kind}/"

    def init(self, root=None):
        """Trusts a root: the first one that is served, unless another one is given."""
        path = self.folder / "initial"
        path.write_bytes(self.repository.files["1.root.json"] if root is None else root)
        assert self.client.init(path) == 0, self.client.said
        assert self.repository.asked == []
        return self

    def current(self):
        """Trusts the first root and has followed everything since."""
        self.init()
        self.accepts()
        return self

    def accepts(self, **how):
        assert self.client.refresh(**how) == 0, self.client.said

    def refuses(self, because=None, **how):
        """`because`: the code that our program says."""
        assert self.client.refresh(**how) == 1, "was accepted"
        self.because(because)

    def gets(self, *paths, **how):
        assert self.client.download(*paths, **how) == 0, self.client.said

    def gets_not(self, *paths, because=None, **how):
        assert self.client.download(*paths, **how) == 1, "was downloaded"
        self.because(because)

    def because(self, code):
        if code and isinstance(self.client, Ours):
            assert f"because: {code}\n" in self.client.said, self.client.said

    def asked(self):
        """What was asked for since the last time."""
        asked, self.repository.asked = self.repository.asked, []
        return asked

    def stored(self, role):
        path = self.metadata / f"{role}.json"
        return path.read_bytes() if path.exists() else None

    def trusted(self, **versions):
        """The roles that are trusted now, each with its version, and no others."""
        found = {path.stem: json.loads(path.read_bytes())["signed"]["version"] for path in self.metadata.glob("*.json")}
        assert found == versions, found

    def downloaded(self):
        """What was downloaded, oldest first."""
        files = [path for path in self.targets.rglob("*") if path.is_file()]
        return [path.read_bytes() for path in sorted(files, key=os.path.getmtime)]
