#!/usr/bin/env bash
# A SLURM of one node for tests, on the loopback interface alone: one_node.sh up FOLDER, one_node.sh
# down FOLDER. Needs root, and Debian's packages slurm-wlm and munge; no systemd, no database.
set -euo pipefail
mode=${1:?up or down} folder=${2:?a folder for configuration and state}
conf=/etc/slurm/slurm.conf # where a job's srun looks for it
cores=${CORES:-2} memory_mib=${MEMORY_MIB:-6000}

down() {
  for name in slurmd slurmctld munged; do
    if [ -s "$folder/$name.pid" ]; then
      kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
      rm -f "$folder/$name.pid"
    fi
  done
  if [ -L "$conf" ] && [ "$(readlink "$conf")" = "$folder/slurm.conf" ]; then rm "$conf"; fi
}

up() {
  [ ! -e "$conf" ] || { echo "$conf exists: this machine has a SLURM of its own" >&2; exit 2; }
  mkdir -p "$folder/state" "$folder/spool" /etc/slurm /run/munge
  chown munge:munge /run/munge && chmod 755 /run/munge
  if [ ! -s /etc/munge/munge.key ]; then
    (umask 077 && dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none)
    chown munge:munge /etc/munge/munge.key
  fi
  cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.own.pid
SlurmdPidFile=$folder/slurmd.own.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
KillWait=2
MinJobAge=300
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory_mib State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONF
  ln -s "$folder/slurm.conf" "$conf"
  munge -n > /dev/null 2>&1 || {
    runuser -u munge -- /usr/sbin/munged --foreground > "$folder/munged.log" 2>&1 &
    for _ in $(seq 100); do munge -n > /dev/null 2>&1 && break; sleep 0.1; done
    cp /run/munge/munged.pid "$folder/munged.pid"
  }
  slurmctld -D > "$folder/slurmctld.out" 2>&1 &
  echo $! > "$folder/slurmctld.pid"
  slurmd -D -N localhost > "$folder/slurmd.out" 2>&1 &
  echo $! > "$folder/slurmd.pid"
  for _ in $(seq 100); do
    if [ "$(sinfo -h -o %T 2>/dev/null)" = idle ]; then return 0; fi
    sleep 0.2
  done
  echo "the node did not come up within 20 s; see $folder/slurmd.log" >&2
  down
  exit 1
}

"$mode"
