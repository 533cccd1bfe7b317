"""Runs every case, two at a time. Arguments: the program, an empty folder. Says each case that failed, and how many there were."""

import importlib
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import stage

FILES = ["files", "keys", "rollback", "delegation", "download", "clock", "stored"]
NUMBERS = count()


def attempt(name, body, client, folder):
    try:
        body(stage.Stage(next(NUMBERS), tempfile.mkdtemp(dir=folder), client))
    except Exception:
        return f"{name}, {client.__name__}:\n{traceback.format_exc(limit=-2)}"
    return None


def main():
    program, folder = sys.argv[1:3]
    wanted = sys.argv[3] if len(sys.argv) > 3 else ""
    stage.Ours.program = program
    for name in FILES:
        importlib.import_module(f"cases_{name}")
    stage.serve()
    chosen = [case for case in stage.CASES if wanted in case[0]]
    left_out = [name for name, _, _, needs in chosen if needs == stage.CLOCK and stage.FAKETIME is None]
    chosen = [case for case in chosen if case[0] not in left_out]
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(attempt, name, body, client, folder)
            for name, body, only, needs in chosen
            for client in ([stage.Ours] if only or needs else [stage.Ours, stage.PythonTuf])
        ]
        failed = [failure for future in asked if (failure := future.result())]
    for failure in failed:
        print(failure)
    if left_out:
        print(f"left out: {len(left_out)} cases of the clock (they need `faketime`)")
    print(f"{len(chosen)} cases, {len(asked)} runs, {len(failed)} failed")
    sys.exit(bool(failed))


main()
