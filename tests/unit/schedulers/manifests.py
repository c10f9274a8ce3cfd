"""Jobs of Kubernetes whose text is recorded in tests/golden/kubernetes.

python -m tests.unit.schedulers.manifests     writes them anew; read the difference
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import distrun
from distrun.env import DIAL_KEY
from distrun.schedulers.kubernetes.manifest import Manifest, ScriptFile
from distrun.schedulers.kubernetes.text import text
from distrun.spec.kubernetes_values import Toleration, Volume

GOLDEN = Path(__file__).parents[2] / "golden" / "kubernetes"
SECRET = "hunter2hunter2hunter2hunter2hunter2"
ARGS = ("--nodes=2", "--grace=30s", "--runs-dir=/runs", "--json", "train.py", "--lr", "0.1")

JOB = Manifest(
    name="train",
    kind="job",
    image="images.example.com/ada/distrun:1",
    command=("distrun", "launch"),
    args=ARGS,
    nodes=2,
    secrets={DIAL_KEY: SECRET},
    made_by=("distrun", "launch", "--on", "kubernetes", "--nodes", "2", "train.py"),
)
EVERYTHING = replace(
    JOB,
    namespace="lab",
    ranks=4,
    gpus=4,
    grace_s=90.5,
    time_limit_s=7200,
    retries=1,
    ttl_s=3600,
    workdir="/src",
    script=ScriptFile("my train.py", b"import torch\n\nprint('a: b')\n"),
    resources={"cpu": "8", "memory": "8Gi"},
    node_selector={"pool": "a100", "zone": ""},
    tolerations=(Toleration("nvidia.com/gpu", None, "NoSchedule"), Toleration("a", "b", "")),
    volumes=(Volume("data", "/data", True), Volume("shared", "/shared")),
    queue="gpus",
    network_policy=True,
    secrets={DIAL_KEY: SECRET, "HF_TOKEN": SECRET, "a.b": SECRET},
    patches=(
        {"spec": {"template": {"spec": {"priorityClassName": "high"}}}},
        {"kind": "Service", "metadata": {"annotations": {"team": "on"}}},
    ),
)
MANIFESTS = {
    "job": JOB,
    "one_node": replace(JOB, nodes=1, args=("train.py",), secrets={}),
    "everything": EVERYTHING,
    "jobset": replace(JOB, kind="jobset", time_limit_s=60, ttl_s=0, queue="gpus"),
    "jobset_everything": replace(EVERYTHING, kind="jobset", patches=()),
    "trainjob": replace(JOB, kind="trainjob"),
    "trainjob_everything": replace(EVERYTHING, kind="trainjob", workdir="", patches=()),
    "hostile": replace(
        JOB,
        args=("--env=A=$(HOME) $$ $x", "- x", "on", "1e3", "a\nb", "é: #", "", "'\"\\"),
        script=ScriptFile("no:\n#.py", b"# coding: latin-1\nprint('\xe9')\n"),
        made_by=("distrun", "launch", "a\nb", "--env", "X=é"),
    ),
}


if __name__ == "__main__":
    distrun.__version__ = "0.0.0"
    GOLDEN.mkdir(exist_ok=True)
    for case, manifest in MANIFESTS.items():
        (GOLDEN / f"{case}.yaml").write_text(text(manifest), encoding="utf-8")
