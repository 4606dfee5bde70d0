#!/usr/bin/env bash
# Runs snakemake under a lock of this folder, and after a kill -9 clears what the dead run left.
#   run.sh <snakemake> [arguments]
# A run holds .lock, each job .jobs.lock (shared). Whoever gets both knows that no run and no orphan is alive here, and
# may unlock Snakemake's own lock, which holds file names and no process. On a cluster these locks may not reach other
# machines, and a job may still wait in the queue: the machine's name in .lock and Slurm's own list of jobs say the rest.
set -euo pipefail

# Jobs in Slurm that snakemake submitted from this folder: %k is the comment that it gives them, %Z the folder.
orphans() {
  squeue --user="$(id -un)" --noheader --format='%A %k %Z' | while read -r id comment folder; do
    if [[ $comment == rule_* && $folder == "$(pwd -P)" ]]; then echo "$id"; fi
  done
}

# They would write beside the jobs of the new run.
cancel_orphans() {
  command -v squeue >/dev/null || return 0
  for _ in $(seq 60); do
    left=$(orphans) || { echo "squeue fails; jobs of the dead run may be alive in Slurm" >&2; return 0; }
    [ -n "$left" ] || return 0
    echo "$left" | xargs scancel
    sleep 1
  done
  echo "jobs of an earlier run do not end:" $left >&2
  exit 1
}

exec 9>>.lock
flock --wait 20 9 || { echo "another run is at work in this folder" >&2; exit 1; }
locked=$(ls .snakemake/locks 2>/dev/null || true)
if [ -n "$locked" ]; then
  begun=$(cat .lock)
  if [ "${begun:=$(uname -n)}" != "$(uname -n)" ]; then
    echo "the last run in this folder was begun on $begun; see that it is dead, remove .lock and start again" >&2
    exit 1
  fi
  cancel_orphans
fi
flock --wait 20 .jobs.lock true || { echo "jobs of an earlier run are still at work in this folder" >&2; exit 1; }
if [ -n "$locked" ]; then "$1" --quiet all --unlock "${@:2}"; fi
uname -n >.lock
"$@"
