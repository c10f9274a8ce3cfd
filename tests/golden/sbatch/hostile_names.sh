#!/bin/bash
# Written by distrun 0.0.0: distrun launch 'my train.py' --text 'a\x0a#SBATCH --array=0-9\x0ab'
#SBATCH --job-name="it's #1: \"$HOME\" `x` \\"
#SBATCH --output="/home/ada/it's 100%% #1/runs/x/batch.log"
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --signal=B:USR2@90
#SBATCH --no-requeue
#SBATCH --export=ALL
#SBATCH --comment="naïve 漢字; rm -rf"

set -eu
cd -- '/home/ada/it'"'"'s 100% #1' || exit 3
# exec: Slurm's warning signal reaches this process alone
exec /home/ada/venv/bin/python -m distrun launch 'my train.py' --text $'a\x0ab' -- '$(reboot)' ''
