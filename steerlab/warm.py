"""A warm process: it has the large libraries imported, and forks itself for each job of a run that asks it to.

Importing torch and transformers takes seconds, in each of the hundreds of jobs of a run. The first job starts a warm
process beside the run and goes on by itself; each job that finds one ready hands over its script, waits, and ends with
its exit status. Nothing of this package is imported in the warm process, and no random number is drawn: a script does
in a fork what it does by itself. Jobs on a card stay away, as torch must be imported after their card is chosen.
"""

import atexit
import gc
import hashlib
import importlib
import json
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

SWITCH = "STEERLAB_WARM"  # 0 in the environment: a job does its script by itself, as every fork does
LIBRARIES = (
    "snakemake.script",
    "pandas",
    "pyarrow.parquet",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.linear_model",
    "matplotlib.pyplot",
    "torch",
    "safetensors.torch",
    "transformers.models.auto.modeling_auto",
    "transformers.modeling_utils",
    "transformers.generation",
)


def process_stat(pid: int) -> tuple[int, int] | None:
    """Parent id and start time (clock ticks) of a live process; None where there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (int(fields[1]), int(fields[19]))


# ---- in a job's process ----


def hand_over(run: int) -> None:
    """Let the warm process of a run do this process's script, and exit with its status; return where there is none yet.

    run: process id of the snakemake that started the job. What returns does its script by itself; the first of a run
    has started the warm process for those that come later.
    """
    stat = process_stat(run)
    if os.environ.get(SWITCH) == "0" or stat is None:
        return None
    kind = hashlib.sha256(repr((sys.executable, os.environ.get("OMP_NUM_THREADS"))).encode()).hexdigest()[:16]
    address = f"\0steerlab-{run}-{stat[1]}-{kind}"  # abstract: it goes with the process and leaves no file
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except ConnectionRefusedError:
            return _start(run, stat[1], address)
        if not _is_ours(connection):
            return None
        with open(os.memfd_create("request"), "w+") as request:
            json.dump({"argv": sys.argv, "folder": str(Path.cwd()), "environ": dict(os.environ)}, request)
            request.flush()
            socket.send_fds(connection, [b"r"], [request.fileno(), 1, 2])
        status = connection.recv(1)
    sys.exit(status[0] if status else "the job's process was killed: out of memory, if nobody did it by hand")


def _start(run: int, born: int, address: str) -> None:
    """Start the warm process, unless another job is at it."""
    command = [sys.executable, "-P", __file__, str(run), str(born), address[1:]]
    nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)  # a pipe of the job's would stay open
    with socket.socket(socket.AF_UNIX) as claim, suppress(OSError):
        claim.bind(address + "-claim")  # the warm process keeps it
        subprocess.Popen(command, pass_fds=(claim.fileno(),), start_new_session=True, cwd="/", **nothing)


def _is_ours(connection: socket.socket) -> bool:
    """True if the process at the other end is this user's: an abstract name is open to everybody."""
    size = struct.calcsize("3i")
    return struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1] == os.getuid()


# ---- the warm process ----


def serve(run: int, born: int, address: str) -> None:
    """Import what there is of LIBRARIES, then fork for each job that connects, until the run has ended."""
    for name in LIBRARIES:
        with suppress(ImportError):  # a rule's own environment need not have all
            importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy these pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen(64)
        door.settimeout(1)
        while (stat := process_stat(run)) and stat[1] == born:
            with suppress(TimeoutError):
                connection, _ = door.accept()
                with connection:
                    if _is_ours(connection) and os.fork() == 0:
                        door.close()
                        _work(connection)


def _work(connection: socket.socket) -> None:
    """Run the script of a job in this fork, send its exit status, and end; end at once when the job's process does."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.setblocking(True)
        _, (request, out, err), _, _ = socket.recv_fds(connection, 1, 3)
        with open(request) as file:
            file.seek(0)
            asked = json.load(file)
        for given, own in ((out, 1), (err, 2)):
            os.dup2(given, own)
            os.close(given)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environ"], **{SWITCH: "0"})
        threading.Thread(target=lambda: connection.recv(1) or os._exit(1), daemon=True).start()
        sys.argv = asked["argv"]
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = _told(end.code)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        with suppress(OSError):
            connection.sendall(bytes([status & 255]))
        os._exit(status)


def _told(code: str | int | None) -> int:
    """The status that an interpreter ends with on `sys.exit(code)`, which prints a text."""
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
        return 1
    return code or 0


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), f"\0{sys.argv[3]}")
