"""Several processes score the same texts through a server that misbehaves, and are killed at seeded moments.

`storm(...)` runs it and tells what the server and the cache saw. At full size, some three minutes:
`python -m tests.unit.storm` (20,000 texts at 200 a second, 30 % faults, 4 processes, 10 kills).
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np

from steerlab.scores.cache import FILE, ScoreCache
from steerlab.scores.network import WORKERS, answers
from steerlab.scores.perspective import Perspective
from tests.unit.perspective_server import BILLED, FAULTS, KEY, SPOILT, score_of

WINDOW = 10.0  # seconds
FELT = 3.0  # seconds after a kill or a 429: the longest rest that the server asks for, and a second


def storm(folder: Path, *, texts: int, quota: float, kills: int, seed: int = 0, processes: int = 4) -> dict:
    """What happened, as plain numbers.

    texts: how many, all given to every process; kills: at seeded moments of the first 80 % of the expected time, each
    followed by a new process. Every fault has the same share of 30 %; 429s come in three seconds, one with Retry-After.
    """
    expected = texts / 0.7 / quota  # seconds
    runs = [(int(share * texts), 1.0, rest) for share, rest in THROTTLED]
    behaviour = {
        "faults": {fault: 0.3 / len(FAULTS) for fault in FAULTS},
        "throttled": runs,
        "stalled": 3.0,
        "seed": seed,
    }
    server = _start("tests.unit.perspective_server", json.dumps(behaviour))
    address = server.stdout.readline().strip()
    (folder / "texts.json").write_text(json.dumps([f"text {number}" for number in range(texts)]))
    given = ("tests.unit.storm", "--worker", str(folder), address, str(quota))
    workers = [_start(*given) for _ in range(processes)]
    draw, started, killed = random.Random(seed), time.time(), []
    try:
        for moment in sorted(draw.uniform(0.05, 0.8) * expected for _ in range(kills)):
            time.sleep(max(0.0, started + moment - time.time()))
            victim = draw.randrange(processes)
            if workers[victim].poll() is None:
                workers[victim].kill()
                killed.append(time.time())
                workers[victim].wait()
                workers[victim] = _start(*given)
        codes = [worker.wait() for worker in workers]
        with urllib.request.urlopen(address) as answer:
            log = json.load(answer)
    finally:
        for process in [*workers, server]:
            process.kill()
            process.wait()
    return {
        "texts": texts,
        "exit codes": codes,
        **_seen(log, killed, quota),
        **_kept(folder, texts),
        "seconds": log[-1][0] - log[0][0],
    }


THROTTLED = ((0.45, 2.0), (0.7, None), (0.95, None))  # requests before them, as a share of the texts; Retry-After


def _seen(log: list, killed: list[float], quota: float) -> dict:
    outcomes = Counter(outcome for _, _, outcome in log)
    scored = Counter(text for _, text, outcome in log if outcome in BILLED)
    times = np.sort([moment for moment, _, _ in log])
    throttled = [moment for moment, _, outcome in log if outcome == "throttled"]
    done = np.sort([moment for moment, _, outcome in log if outcome == "scored"])
    end = done[int(0.98 * len(done))]  # after it too few texts are left to fill the quota
    calm = [
        np.sum((times >= start) & (times < start + WINDOW)) / (WINDOW * quota)
        for start in np.arange(times[0] + 2, end - WINDOW, 0.25)
        if not any(start - FELT <= moment < start + WINDOW for moment in [*killed, *throttled])
    ]
    at_most = max(np.searchsorted(times, moment + WINDOW) - place for place, moment in enumerate(times))
    return {
        "requests": len(log),
        "outcomes": dict(outcomes),
        "billed": sum(scored.values()),
        "spoilt": sum(outcomes[kind] for kind in SPOILT),
        "kills": len(killed),
        "in flight at most": len(killed) * WORKERS,
        "most requests in 10 s, of the quota": at_most / (WINDOW * quota),
        "windows without kill or 429": len(calm),
        "least filled of them": min(calm, default=None),
        "their median": float(np.median(calm)) if calm else None,
    }


def _kept(folder: Path, texts: int) -> dict:
    question = Perspective(KEY, address="http://unused").question
    with ScoreCache(folder / FILE) as cache:
        rows, faults = list(cache.rows()), cache.faults()
    right = {score_of(f"text {number}") for number in range(texts)}
    found = [json.loads(row[2])[question.attributes[0]] for row in rows]
    return {"rows": len(rows), "right": len(right & set(found)), "faults of the file": faults}


def _start(module: str, *arguments: str) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen([sys.executable, "-m", module, *arguments], **pipes)


def _work(folder: Path, address: str, quota: float) -> None:
    texts = json.loads((folder / "texts.json").read_text())
    answers(Perspective(KEY, address=address, timeout=1.0), texts, folder, quota=quota)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--quota", type=float, default=200.0, help="requests a second")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.worker:
        folder, address, quota = chosen.worker
        _work(Path(folder), address, float(quota))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = storm(Path(folder), texts=chosen.texts, quota=chosen.quota, kills=chosen.kills, seed=chosen.seed)
    print(json.dumps(found, indent=1, default=float))


if __name__ == "__main__":
    main()
