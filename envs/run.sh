#!/usr/bin/env bash
# Runs snakemake under a lock of this folder, and after a kill -9 clears what the dead run left.
#   run.sh <snakemake> [arguments]
# Every job holds the lock too (it inherits the descriptor), so whoever gets it knows that no run and no orphan is alive
# here, and may unlock Snakemake's own lock, which holds file names and no process.
set -euo pipefail
exec 9>.lock
flock --wait 20 9 || { echo "another run is at work in this folder" >&2; exit 1; }
if [ -n "$(ls .snakemake/locks 2>/dev/null)" ]; then "$1" --unlock --quiet all "${@:2}"; fi
"$@"
