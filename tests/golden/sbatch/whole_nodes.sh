#!/bin/bash
# Written by distrun 0.0.0: distrun launch --on slurm --nodes 2 train.py
#SBATCH --job-name=ddp
#SBATCH --output=/home/ada/runs/20261128-120000-ddp-1a2b/batch.log
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --signal=B:USR2@90
#SBATCH --no-requeue
#SBATCH --export=ALL

set -eu
cd -- /home/ada || exit 3
# exec: Slurm's warning signal reaches this process alone
exec /home/ada/venv/bin/python -m distrun launch train.py
