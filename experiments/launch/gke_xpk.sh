#!/bin/bash
# A run on a TPU slice of a GKE cluster, through xpk (https://github.com/AI-Hypercomputer/xpk).
#
#   CLUSTER=pods PROJECT=mine ZONE=us-east5-a TPU_TYPE=v5p-64 IMAGE=gcr.io/mine/codelm WORKLOAD=base-3b \
#   RUNS=/shared/runs experiments/launch/gke_xpk.sh configs/base_3b.py --name base-3b [--dotted.overrides …]
#
# The image holds the checkout in its working folder, with `make install EXTRAS="tpu data"`. RUNS is a folder that every
# pod mounts (`xpk storage attach` before; Filestore, or a bucket through gcsfuse). JAX finds the processes by what GKE
# tells TPU pods. A pod that is lost ends the others (exit code 75), and the JobSet starts all of them again.
set -euo pipefail

[[ $# -gt 0 ]] || { echo "usage: VARIABLES $0 CONFIG --name NAME … (see its first lines)" >&2; exit 2; }
for name in CLUSTER PROJECT ZONE TPU_TYPE IMAGE WORKLOAD RUNS; do
    [[ -n ${!name:-} ]] || { echo "$0: set $name (see its first lines)" >&2; exit 2; }
done

printf -v run '%q ' .venv/bin/codelm run "$@" --dir "$RUNS" --distributed
# A pod that is told to leave saves and exits with 0, which a JobSet would take for the end of the work.
marked="trap 'told=yes; kill -TERM \$!' TERM; $run & wait \$!; code=\$?; \
if [ \"\${told:-}\" ]; then wait \$!; exit 75; fi; exit \$code"
xpk workload create \
    --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" --workload="$WORKLOAD" \
    --tpu-type="$TPU_TYPE" --num-slices="${SLICES:-1}" --docker-image="$IMAGE" \
    --max-restarts="${RESTARTS:-100}" --restart-on-user-code-failure --termination-grace-period-seconds=120 \
    --command="$marked"
