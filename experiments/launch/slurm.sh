#!/bin/bash
# A run on the nodes of a Slurm job, one process a GPU; requeued until it is finished.
#
#   sbatch --nodes 4 --ntasks-per-node 8 --gpus-per-node 8 --cpus-per-task 8 --time 24:00:00 \
#       experiments/launch/slurm.sh configs/base_1_3b.py --dir /shared/runs [--dotted.overrides …]
#
# Submit it from the checkout, which all nodes see, with its .venv (make install EXTRAS="cuda data"). JAX finds the
# processes by Slurm's variables. Two minutes before its time is up, training saves and the job is queued again; so it
# is when a node is lost. Bad input (exit code 2) and errors (1) end it.
#
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

[[ $# -gt 0 && -n ${SLURM_JOB_ID:-} ]] || { echo "usage: sbatch [SLURM OPTIONS] $0 CONFIG --dir DIR …" >&2; exit 2; }

stopped= child=
trap 'stopped=yes; [[ -z $child ]] || kill -TERM "$child"' TERM # srun passes it on to every process
srun --kill-on-bad-exit=0 "${CODELM:-.venv/bin/codelm}" run "$@" --distributed &
child=$!
code=0
wait "$child" || code=$?
if [[ $stopped ]]; then # the signal ended the wait, not the run
    code=0
    wait "$child" || code=$?
fi
if [[ $stopped || $code == 75 || $code -gt 128 ]]; then # 75: a process is gone; above 128: srun, or all of it, killed
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
