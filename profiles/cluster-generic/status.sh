#!/usr/bin/env bash
# What became of a job, in the word that Snakemake's cluster-generic executor asks for: running, success or failed.
#   status.sh <job id>
case $(scontrol show job --oneliner "$1" 2>/dev/null | grep -o 'JobState=[A-Z_]*') in
  JobState=COMPLETED) echo success ;;
  JobState=PENDING | JobState=CONFIGURING | JobState=RUNNING | JobState=COMPLETING | JobState=SUSPENDED) echo running ;;
  *) echo failed ;;
esac
