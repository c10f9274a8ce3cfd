#!/bin/bash
# Written by distrun 0.0.0
#SBATCH --job-name=share
#SBATCH --output=/home/ada/runs/20261128-120000-ddp-1a2b/batch.log
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=2
#SBATCH --cpus-per-task=8
#SBATCH --time=00:10:00
#SBATCH --signal=B:USR2@90
#SBATCH --no-requeue
#SBATCH --export=ALL
#SBATCH --mem=64G

set -eu
cd -- /home/ada || exit 3
# exec: Slurm's warning signal reaches this process alone
exec /home/ada/venv/bin/python -m distrun launch --nproc-per-node 2 train.py
