#!/usr/bin/env bash
# Runs snakemake under a lock of this folder, and after a kill -9 clears what the dead run left.
#   run.sh <snakemake> [arguments]
# A run holds .lock, each job .jobs.lock (shared). Whoever gets both knows that no run and no orphan is alive here, and
# may unlock Snakemake's own lock, which holds file names and no process. Where the folder is shared by machines whose
# locks do not reach one another, the machine's name in .lock and Slurm's own list of jobs stand in for them.
set -euo pipefail
exec 9>>.lock
flock --wait 20 9 || { echo "another run is at work in this folder" >&2; exit 1; }
if [ -n "$(ls .snakemake/locks 2>/dev/null)" ]; then
  host=$(cat .lock)
  if [ -n "$host" ] && [ "$host" != "$(hostname)" ]; then
    echo "the last run in this folder was begun on $host; see that it is over there, remove .lock and start again" >&2
    exit 1
  fi
  if command -v squeue >/dev/null; then
    # What a dead run submitted waits or works on: end it, or it would write beside the new run. (%k: comment)
    orphans() { squeue --user="$(id -un)" --noheader --format='%A %k %Z' | while read -r id comment folder; do
      case $comment in rule_*) [ "$folder" != "$(pwd -P)" ] || echo "$id" ;; esac; done; }
    for _ in $(seq 60); do
      left=$(orphans)
      [ -n "$left" ] || break
      echo "$left" | xargs scancel
      sleep 1
    done
  fi
fi
flock --wait 20 .jobs.lock true || { echo "jobs of an earlier run are still at work in this folder" >&2; exit 1; }
if [ -n "$(ls .snakemake/locks 2>/dev/null)" ]; then "$1" --quiet all --unlock "${@:2}"; fi
hostname >.lock
"$@"
