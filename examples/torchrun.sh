#!/usr/bin/env bash
# Train on several machines without a scheduler: run this script on each of them, with NODE_RANK 0, 1, ... in turn.
#
#   on the first:   NODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 examples/torchrun.sh data/tasks.yaml runs/mine
#   on the second:  NODES=2 NODE_RANK=1 MASTER_ADDR=10.0.0.1 examples/torchrun.sh data/tasks.yaml runs/mine
#
# DATA and RUN are paths that every machine sees under the same name (a shared file system). On one machine alone
# `tpseg train --devices auto` does the same without this script.
set -euo pipefail

data=${1:?usage: torchrun.sh DATA RUN [options of tpseg train]}
run=${2:?usage: torchrun.sh DATA RUN [options of tpseg train]}
shift 2

# One process for each GPU of this machine; DEVICES=2 on a machine without GPUs starts two on its CPU.
devices=${DEVICES:-$(nvidia-smi --list-gpus | wc -l)}

# The same command begins a run and goes on with it.
resume=()
if [[ -e "$run/settings.yaml" ]]; then
    resume=(--resume)
fi

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}  # threads of each process, not of the machine
export TORCH_CPP_LOG_LEVEL=${TORCH_CPP_LOG_LEVEL:-ERROR}

# --devices and --nodes are left out: tpseg finds them in what torchrun sets.
exec torchrun \
    --nnodes "${NODES:-1}" \
    --node-rank "${NODE_RANK:-0}" \
    --nproc-per-node "$devices" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" \
    --master-port "${MASTER_PORT:-29500}" \
    -m tpseg.cli train --data "$data" --out "$run" ${resume[@]+"${resume[@]}"} "$@"
