#!/bin/bash
# Written by distrun 0.0.0
#SBATCH --job-name=named
#SBATCH --output=/home/ada/runs/20261128-120000-ddp-1a2b/batch.log
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --no-requeue
#SBATCH --export=HOME,PATH,WANDB_MODE

set -eu
export SLURM_EXPORT_ENV=ALL  # else srun would pass on only what --export names
cd -- /home/ada || exit 3
# exec: Slurm's warning signal reaches this process alone
exec /home/ada/venv/bin/python -m distrun launch train.py
