#!/usr/bin/env bash
# Runs snakemake under a lock of this folder, and after a kill -9 clears what the dead run left.
#   run.sh <snakemake> [arguments]
# A run holds .lock, each job .jobs.lock (shared). Whoever gets both knows that no run and no orphan is alive here, and
# may unlock Snakemake's own lock, which holds file names and no process.
set -euo pipefail
exec 9>.lock
flock --wait 20 9 || { echo "another run is at work in this folder" >&2; exit 1; }
flock --wait 20 .jobs.lock true || { echo "jobs of an earlier run are still at work in this folder" >&2; exit 1; }
if [ -n "$(ls .snakemake/locks 2>/dev/null)" ]; then "$1" --quiet all --unlock "${@:2}"; fi
"$@"
