"""Batch jobs whose scripts are recorded in tests/golden/sbatch.

python -m tests.unit.schedulers.batches     writes them anew; read the difference
"""

from __future__ import annotations

from pathlib import Path

import distrun
from distrun.schedulers.sbatch import Batch, render

GOLDEN = Path(__file__).parents[2] / "golden" / "sbatch"
LAUNCH = ("/home/ada/venv/bin/python", "-m", "distrun", "launch")
RUN = "/home/ada/runs/20261128-120000-ddp-1a2b"

BATCHES = {
    "whole_nodes": Batch(
        name="ddp",
        command=(*LAUNCH, "train.py"),
        workdir="/home/ada",
        output=f"{RUN}/batch.log",
        nodes=2,
        made_by=("distrun", "launch", "--on", "slurm", "--nodes", "2", "train.py"),
    ),
    "everything_asked": Batch(
        name="ddp",
        command=(*LAUNCH, "--grace", "30", "train.py", "--lr", "0.1"),
        workdir="/home/ada/project",
        output=f"{RUN}/batch.log",
        nodes=4,
        time_limit_s=36 * 3600,
        partition="gpu,gpu-long",
        account="lab",
        qos="high",
        constraint="a100|h100",
        requeue=True,
        warn_s=300,
        options=(("exclude", "n[3,7]"), ("reservation", "maint"), ("contiguous", "")),
        made_by=("distrun", "launch", "--on", "slurm", "--requeue", "train.py"),
    ),
    "share_of_a_node": Batch(
        name="share",
        command=(*LAUNCH, "--nproc-per-node", "2", "train.py"),
        workdir="/home/ada",
        output=f"{RUN}/batch.log",
        time_limit_s=600,
        gpus_per_node=2,
        cpus_per_task=8,
        options=(("mem", "64G"),),
    ),
    "named_variables": Batch(
        name="named",
        command=(*LAUNCH, "train.py"),
        workdir="/home/ada",
        output=f"{RUN}/batch.log",
        environ=("HOME", "PATH", "WANDB_MODE"),
        warn_s=0,
    ),
    "hostile_names": Batch(
        name='it\'s #1: "$HOME" `x` \\',
        command=(*LAUNCH, "my train.py", "--text", "a\nb", "--", "$(reboot)", ""),
        workdir="/home/ada/it's 100% #1",
        output="/home/ada/it's 100% #1/runs/x/batch.log",
        made_by=("distrun", "launch", "my train.py", "--text", "a\n#SBATCH --array=0-9\nb"),
        options=(("comment", "naïve 漢字; rm -rf"),),
    ),
    "other_sharing": Batch(
        name="debug",
        command=(*LAUNCH, "-m", "package.train"),
        workdir="/home/ada",
        output=f"{RUN}/batch.log",
        partition="debug",
        time_limit_s=86400,
        options=(("exclusive", "user"), ("mem-per-cpu", "4G"), ("gres", "gpu:8")),
    ),
}


if __name__ == "__main__":
    distrun.__version__ = "0.0.0"
    for case, batch in BATCHES.items():
        (GOLDEN / f"{case}.sh").write_text(render(batch), encoding="utf-8")
