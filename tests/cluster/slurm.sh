#!/usr/bin/env bash
# A real Slurm of several emulated nodes on this one machine, without systemd and without touching /etc.
#   slurm.sh start DIR [NODES]     then: . DIR/env     (sets SLURM_CONF)
#   slurm.sh stop DIR
# Needs: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge. Any user may run it, root too.
# Each node has 2 CPUs, 3 GPUs (empty files) and nearly all memory of the machine.
set -euo pipefail
action=${1:?start or stop}; dir=$(realpath -m "${2:?folder}"); nodes=${3:-2}
export PATH=$PATH:/usr/sbin
pids() { cat "$dir"/run/*.pid 2>/dev/null || true; }

stop() {
    [ -e "$dir/env" ] && . "$dir/env"
    timeout 5 scancel --user="$(id -un)" 2>/dev/null || true
    for _ in $(seq 30); do [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break; sleep 0.2; done
    local all; all=$(pids)
    for p in $all; do kill "$p" 2>/dev/null || true; done
    for _ in $(seq 50); do
        local alive=; for p in $all; do kill -0 "$p" 2>/dev/null && alive=1; done
        [ -z "$alive" ] && break; sleep 0.1
    done
    for p in $all; do kill -9 "$p" 2>/dev/null || true; done
    rm -f "$dir"/run/*.pid
}
[ "$action" = stop ] && { stop; exit 0; }

mkdir -p "$dir"/{run,log,state,spool}; chmod 755 "$dir" "$dir"/*
me=$(id -un); host=$(hostname -s)
free() { python3 -c 'import socket,sys
s=[socket.socket() for _ in range(int(sys.argv[1]))]
[x.bind(("127.0.0.1",0)) for x in s]; print(*[x.getsockname()[1] for x in s])' "$1"; }
read -ra ports <<<"$(free $((nodes + 1)))"
memory=$(awk '/MemTotal/{print int($2/1024*0.9)}' /proc/meminfo)

# munge, with its own key and socket
[ -s "$dir/munge.key" ] || (umask 077; head -c 1024 /dev/urandom >"$dir/munge.key")
munged --force --key-file="$dir/munge.key" --socket="$dir/run/munge.socket" --pid-file="$dir/run/munged.pid" \
    --log-file="$dir/log/munged.log" --seed-file="$dir/run/munge.seed" --num-threads=2

{ cat <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$me
SlurmdUser=$me
AuthType=auth/munge
AuthInfo=socket=$dir/run/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd_%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd_%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,defer_batch
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
KillWait=30
InactiveLimit=0
MinJobAge=86400
# Memory is looked at every second and a job above its --mem is ended, with no cgroups needed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
GresTypes=gpu
AccountingStorageType=accounting_storage/none
CONF
for i in $(seq "$nodes"); do
    echo "NodeName=node$i NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[$i]} CPUs=2" \
         "RealMemory=$memory Gres=gpu:3 State=UNKNOWN"
done
echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=512 State=UP"
echo "PartitionName=short Nodes=node1 MaxTime=1 State=UP"
} >"$dir/slurm.conf"
touch "$dir"/run/gpu{0,1,2}
for i in $(seq "$nodes"); do echo "NodeName=node$i Name=gpu File=$dir/run/gpu[0-2]"; done >"$dir/gres.conf"
# snakemake-executor-plugin-slurm-jobstep drops every SLURM_* variable before its srun, SLURM_CONF too: where nothing is
# in /etc/slurm an srun that sets it again must come first on the path.
mkdir -p "$dir/bin"; printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$dir/slurm.conf" "$(command -v srun)" >"$dir/bin/srun"
chmod +x "$dir/bin/srun"
echo "export SLURM_CONF=$dir/slurm.conf PATH=$dir/bin:\$PATH" >"$dir/env"
export SLURM_CONF=$dir/slurm.conf

slurmctld -f "$SLURM_CONF" -i
for i in $(seq "$nodes"); do mkdir -p "$dir/spool/node$i"; slurmd -f "$SLURM_CONF" -N "node$i"; done
for _ in $(seq 40); do
    [ "$(timeout 1 sinfo -h -p main -t idle -o %D 2>/dev/null | head -1)" = "$nodes" ] && exit 0
    sleep 0.2
done
echo "Slurm did not come up:" >&2; tail -n 20 "$dir"/log/*.log >&2; stop; exit 1
