#!/usr/bin/env bash
# A Slurm of one node on this machine, for the tests (Debian or Ubuntu, root, no systemd needed); start it again at will.
#   up.sh           install what is missing, start munged, slurmctld and slurmd, wait until the node takes jobs
#   up.sh --stop    end what it started, by the process ids that it noted
# Its files lie in $SLURM_FOLDER (/tmp/steerlab-slurm). The node has four GPUs that are /dev/null and its
# like, and claims more cores than there are: its jobs are short, and much of one is waiting for Slurm and Snakemake.
set -euo pipefail
folder=${SLURM_FOLDER:-/tmp/steerlab-slurm}
etc=/etc/slurm # job steps start without SLURM_CONF, so the files must also be found here

alive() { # a process that was killed and not yet waited for is not
  case $(ps -o stat= -p "$(cat "$folder/$1.pid" 2>/dev/null || echo 0)" 2>/dev/null || true) in "" | Z*) return 1 ;; esac
}

stop() {
  for daemon in slurmd slurmctld munged; do
    if alive "$daemon"; then
      kill "$(cat "$folder/$daemon.pid")"
      for _ in $(seq 100); do alive "$daemon" || break; sleep 0.1; done
    fi
    rm -f "$folder/$daemon.pid"
  done
  for file in slurm gres cgroup; do
    if [ "$(readlink "$etc/$file.conf" || true)" = "$folder/$file.conf" ]; then rm "$etc/$file.conf"; fi
  done
}

if [ "${1:-}" = --stop ]; then stop; exit 0; fi
[ "$(id -u)" = 0 ] || { echo "starting a Slurm of one's own needs root" >&2; exit 1; }
for file in slurm gres cgroup; do
  if [ -e "$etc/$file.conf" ] && [ "$(readlink "$etc/$file.conf")" != "$folder/$file.conf" ]; then
    echo "$etc/$file.conf: this machine has a Slurm already, and is left alone" >&2; exit 1
  fi
done
if ! { command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge >/dev/null
fi

host=$(hostname -s)
mkdir -p "$etc" "$folder"/{state,spool,log}
chmod 755 "$folder"
[ -s "$folder/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
cat >"$folder/slurm.conf" <<EOT
ClusterName=steerlab
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldPort=6817
SlurmdPort=6818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmdTimeout=10
MinJobAge=86400
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=32000 Gres=gpu:4 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=$host MaxTime=INFINITE State=UP
EOT
printf 'AutoDetect=off\nNodeName=%s Name=gpu File=/dev/null,/dev/zero,/dev/full,/dev/random\n' "$host" >"$folder/gres.conf"
printf 'IgnoreSystemd=yes\nConstrainCores=no\nConstrainDevices=no\nConstrainRAMSpace=no\n' >"$folder/cgroup.conf"
for file in slurm gres cgroup; do ln -sfn "$folder/$file.conf" "$etc/$file.conf"; done

alive munged || munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed"
alive slurmctld || slurmctld
alive slurmd || slurmd
for _ in $(seq 30); do
  scontrol update nodename="$host" state=resume >/dev/null 2>&1 || true # a node that an earlier start left drained or down
  case $(sinfo --noheader --partition=main --format=%T 2>/dev/null) in idle | mixed | allocated) exit 0 ;; esac
  sleep 1
done
echo "Slurm did not come up; its logs:" >&2
tail -n 5 "$folder"/log/*.log >&2
exit 1
