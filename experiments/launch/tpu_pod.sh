#!/bin/bash
# A run on all hosts of a TPU VM pod, through ssh.
#
#   TPU=pod ZONE=us-east5-a PROJECT=mine CHECKOUT=/shared/codelm \
#   experiments/launch/tpu_pod.sh configs/base_3b.py --dir /shared/runs [--dotted.overrides …]
#
# CHECKOUT is on every host (make install EXTRAS="tpu data"); the folder of runs is one that all of them mount. JAX
# finds the processes by the TPU's metadata. When a host is lost the others end with 75, and all are started again, at
# most RESTARTS times; a pod that was taken away has to be made again first.
set -euo pipefail

[[ $# -gt 0 ]] || { echo "usage: VARIABLES $0 CONFIG --dir DIR … (see its first lines)" >&2; exit 2; }
for name in TPU ZONE PROJECT CHECKOUT; do
    [[ -n ${!name:-} ]] || { echo "$0: set $name (see its first lines)" >&2; exit 2; }
done

printf -v run '%q ' .venv/bin/codelm run "$@" --distributed
printf -v place '%q' "$CHECKOUT"
for ((left = ${RESTARTS:-10}; ; left--)); do
    code=0
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --project="$PROJECT" --worker=all \
        --command="cd $place && $run" || code=$?
    [[ $code != 0 && $code != 2 && $code != 130 && $left -gt 0 ]] || exit "$code"
    echo "ended with $code: starting again, $left times at most" >&2
    sleep "${PAUSE:-30}"
done
