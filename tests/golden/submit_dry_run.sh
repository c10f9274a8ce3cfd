#!/bin/bash
# Written by distrun VERSION: distrun launch --on slurm --nodes 2:4 --partition gpu --time 2h --requeue --sbatch mem=64G --sbatch contiguous --env 'HF_TOKEN=***' --env 'GREETING=it'"'"'s $HOME' --quiet --dry-run 'my train.py' --lr 0.1
#SBATCH --job-name="my train"
#SBATCH --output=/work/runs/RUN/batch.log
#SBATCH --open-mode=append
#SBATCH --partition=gpu
#SBATCH --nodes=2-4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=02:00:00
#SBATCH --signal=B:USR2@90
#SBATCH --requeue
#SBATCH --export=ALL
#SBATCH --mem=64G
#SBATCH --contiguous

set -eu
export DISTRUN_RUN=/work/runs/RUN
cd -- /work || exit 3
# exec: Slurm's warning signal reaches this process alone
exec /venv/bin/python -m distrun launch '--env=GREETING=it'"'"'s $HOME' 'my train.py' --lr 0.1
