#!/bin/bash
# Written by distrun 0.0.0: distrun launch --on slurm --requeue train.py
#SBATCH --job-name=ddp
#SBATCH --output=/home/ada/runs/20261128-120000-ddp-1a2b/batch.log
#SBATCH --open-mode=append
#SBATCH --partition=gpu,gpu-long
#SBATCH --account=lab
#SBATCH --qos=high
#SBATCH --constraint=a100|h100
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=1-12:00:00
#SBATCH --signal=B:USR2@300
#SBATCH --requeue
#SBATCH --export=ALL
#SBATCH --exclude=n[3,7]
#SBATCH --reservation=maint
#SBATCH --contiguous

set -eu
cd -- /home/ada/project || exit 3
# exec: Slurm's warning signal reaches this process alone
exec /home/ada/venv/bin/python -m distrun launch --grace 30 train.py --lr 0.1
