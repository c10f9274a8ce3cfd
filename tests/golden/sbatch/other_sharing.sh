#!/bin/bash
# Written by distrun 0.0.0
#SBATCH --job-name=debug
#SBATCH --output=/home/ada/runs/20261128-120000-ddp-1a2b/batch.log
#SBATCH --open-mode=append
#SBATCH --partition=debug
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=1-00:00:00
#SBATCH --signal=B:USR2@90
#SBATCH --no-requeue
#SBATCH --export=ALL
#SBATCH --exclusive=user
#SBATCH --mem-per-cpu=4G
#SBATCH --gres=gpu:8

set -eu
cd -- /home/ada || exit 3
# exec: Slurm's warning signal reaches this process alone
exec /home/ada/venv/bin/python -m distrun launch -m package.train
