"""Make envs/requirements.lock from envs/requirements.in: every package with its version and hash, torch left out.

torch's wheels differ from index to index, so it has a pip line of its own (see the Makefile); what it needs is here.
The hashes are of the files that pip chooses on Linux x86-64 with CPython 3.11. Run by `make lock`.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HEAD = "# Made by `make lock` from envs/requirements.in, for Linux x86-64 and CPython 3.11. Do not edit.\n"


def main(torch: str) -> None:
    """Write the lock of requirements.in and torch (such as "torch==2.13.0", which is resolved and left out)."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    result = subprocess.run([*command, torch, "-r", str(HERE / "requirements.in")], capture_output=True, check=True)
    lines = [line(item) for item in json.loads(result.stdout)["install"] if item["metadata"]["name"] != "torch"]
    (HERE / "requirements.lock").write_text(HEAD + "\n".join(sorted(lines, key=str.lower)) + "\n")


def line(item: dict) -> str:
    """A package of pip's report, pinned with the hash of its archive."""
    name, version = item["metadata"]["name"], item["metadata"]["version"]
    return f"{name}=={version} --hash=sha256:{item['download_info']['archive_info']['hashes']['sha256']}"


if __name__ == "__main__":
    main(sys.argv[1])
