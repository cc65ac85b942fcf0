#!/usr/bin/env bash
# Train on a SLURM cluster: sbatch examples/slurm.sh data/tasks.yaml runs/mine [options of tpseg train]
#
# Two machines with four GPUs each. Change the numbers here and nowhere else: tpseg finds them in what srun sets.
# DATA and RUN lie on a file system that all machines see. Create the folder for the job's output before you submit.
#SBATCH --job-name=tpseg
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4      # a process for each GPU ...
#SBATCH --gres=gpu:4             # ... and a GPU for each process
#SBATCH --cpus-per-task=8        # for the loading processes of each (sampling.workers) and itself
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --requeue                # after a preemption the job starts again, and goes on where it was
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
set -euo pipefail

data=${1:?usage: sbatch slurm.sh DATA RUN [options of tpseg train]}
run=${2:?usage: sbatch slurm.sh DATA RUN [options of tpseg train]}
shift 2

# source /path/to/venv/bin/activate

# The same command begins a run and goes on with it.
resume=()
if [[ -e "$run/settings.yaml" ]]; then
    resume=(--resume)
fi

export OMP_NUM_THREADS=1  # each loading process is one thread; the GPUs do the rest
export TORCH_CPP_LOG_LEVEL=ERROR

# srun starts the 8 processes. --kill-on-bad-exit ends all when one fails, rather than leave the others waiting for it.
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-8}" \
    tpseg train --data "$data" --out "$run" --sampling.workers 6 ${resume[@]+"${resume[@]}"} "$@"
