"""`distrun launch`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import time as wall_clock_s
from typing import TYPE_CHECKING, Any

import typer

from distrun.cli.assignments import assignments, where_and_actions
from distrun.cli.follow_job import Shown
from distrun.cli.kubernetes_flags import kubernetes_table, refuse_kubernetes_flags
from distrun.cli.rank_list import rank_list
from distrun.cli.submit_run import refuse_slurm_flags, slurm_table, submit_run, words_in_job
from distrun.errors import DistrunError, UsageError

if TYPE_CHECKING:
    from distrun.api.asked import Asked
    from distrun.api.launch import Prepared
    from distrun.api.runs import RunDirectory


def launch(
    script: str = typer.Argument(
        ..., metavar="SCRIPT", help="Script, or module with -m, that every rank runs."
    ),
    args: list[str] = typer.Argument(None, metavar="[ARGS]...", help="Its arguments, untouched."),
    nodes: str = typer.Option(None, metavar="N|MIN:MAX", help="Nodes; emulated without hosts."),
    nproc_per_node: str = typer.Option(
        None, metavar="auto|gpu|cpu|N", help="Ranks a node [auto: a GPU each, else cores]."
    ),
    strategy: str = typer.Option(
        None, metavar="NAME", help="dp, ddp, fsdp, hsdp, tp, pp, ep or cp."
    ),
    gpus: str = typer.Option(None, metavar="0,2|free:N", help="GPUs to use."),
    max_restarts: str = typer.Option(None, metavar="N", help="Restarts of a crashed world [0]."),
    spare: str = typer.Option(None, metavar="N", help="Nodes that stand by for a failing one [0]."),
    regrow: bool = typer.Option(
        False, "--regrow", help="Take a node that is back at the next checkpoint."
    ),
    env: list[str] = typer.Option(None, metavar="K=V", help="Variable for the ranks; repeatable."),
    env_file: str = typer.Option(None, metavar="FILE", help="KEY=VALUE lines, kept secret."),
    config: Path = typer.Option(None, metavar="FILE", help="TOML file with [tool.distrun]."),
    module: bool = typer.Option(False, "--module", "-m", help="SCRIPT is a module."),
    no_python: bool = typer.Option(False, "--no-python", help="SCRIPT is a program of its own."),
    runs_dir: str = typer.Option(None, metavar="DIR", help="Where runs are recorded [runs]."),
    hosts: str = typer.Option(None, metavar="A,B", help="Machines that ssh reaches, a node each."),
    hostfile: str = typer.Option(None, metavar="FILE", help="Names them, a line each: a slots=4."),
    on: list[str] = typer.Option(
        None,
        metavar="local|ssh|slurm|kubernetes|compose",
        help="Where [ssh with --hosts]; or FAILURE=ACTION (see --dry-run).",
    ),
    image: str = typer.Option(None, metavar="IMAGE", help="What the containers run."),
    python: str = typer.Option(None, metavar="PATH", help="Python there [as here, or python3]."),
    workdir: str = typer.Option(None, metavar="DIR", help="Working directory there [as here]."),
    sync: bool = typer.Option(False, "--sync", help="Send the project there before the start."),
    bootstrap: bool = typer.Option(False, "--bootstrap", help="Send distrun there for this run."),
    interface: str = typer.Option(None, metavar="NAME", help="Network of the nodes [the route]."),
    master_port: str = typer.Option(None, metavar="PORT", help="Rendezvous port [a free one]."),
    time_limit: str = typer.Option(None, metavar="TIME", help="Stop after 90s, 5m, 2h …"),
    grace: str = typer.Option(None, metavar="TIME", help="From SIGTERM to SIGKILL [30s]."),
    linger: str = typer.Option(
        None, metavar="TIME", help="For what ranks leave behind at a clean end [the grace]."
    ),
    join_timeout: str = typer.Option(None, metavar="TIME", help="For nodes to join [5m]."),
    straggler_notice: str = typer.Option(
        None, metavar="TIME", help="Tell where ranks are when others have ended for so long [60s]."
    ),
    hang_timeout: str = typer.Option(
        None, metavar="TIME", help="For ranks that wait for a rank, without progress [5m]; 0: off."
    ),
    on_hang: str = typer.Option(None, metavar="stop|observe", help="What to do then [stop]."),
    start_method: str = typer.Option(None, metavar="forkserver|spawn", help="Warm or cold ranks."),
    log_max_mib: str = typer.Option(None, metavar="N", help="Rotate rank logs at this size."),
    metrics_every: str = typer.Option(
        None, metavar="TIME", help="Sample GPUs, CPU, memory, disk, network [10s]; 0: off."
    ),
    report: bool = typer.Option(True, help="Write report.html at the end."),
    track: str = typer.Option(
        None, metavar="NAME", help="Metrics to tensorboard, wandb, mlflow or trackio too."
    ),
    check: bool = typer.Option(True, help="Check the machine before the start."),
    strict: bool = typer.Option(False, "--strict", help="Refuse to start on a warning too."),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Print nothing but how it ended, if it failed."
    ),
    only_rank: str = typer.Option(None, metavar="R[,R-R]", help="Show these ranks' output only."),
    prefix: bool = typer.Option(None, help="Name the rank before a line [if there are several]."),
    fold: bool = typer.Option(False, "--fold", help="Show equal lines of many ranks once."),
    debug_rank: int = typer.Option(
        None, "--debug-rank", metavar="R", help="Give rank R the terminal, for breakpoint()."
    ),
    json: bool = typer.Option(False, "--json", help="Print every event as a line of JSON."),
    detach: bool = typer.Option(False, "--detach", "-d", help="Start it and return at once."),
    resume: str = typer.Option(
        None, metavar="RUN", help="Go on with a run that was stopped or has failed."
    ),
    partition: str = typer.Option(None, metavar="NAME", help="Partition [Slurm's default]."),
    account: str = typer.Option(None, metavar="NAME", help="Account that the job is charged to."),
    qos: str = typer.Option(None, metavar="NAME", help="Quality of service."),
    constraint: str = typer.Option(None, metavar="LIST", help="Features of the nodes."),
    time: str = typer.Option(None, metavar="TIME", help="Limit of the job [the partition's]."),
    requeue: bool = typer.Option(
        False, "--requeue", help="Start the job again if it is preempted, or at its limit."
    ),
    sbatch: list[str] = typer.Option(
        None, metavar="KEY=VALUE", help="Another option of sbatch; repeatable."
    ),
    kind: str = typer.Option(None, metavar="job|jobset|trainjob", help="Kind of the job [job]."),
    job_name: str = typer.Option(None, metavar="NAME", help="Its name [the script's]."),
    namespace: str = typer.Option(None, metavar="NAME", help="Namespace [the context's]."),
    context: str = typer.Option(None, metavar="NAME", help="Context of the kubeconfig."),
    kubeconfig: str = typer.Option(None, metavar="FILE", help="The kubeconfig [as kubectl's]."),
    configmap: bool = typer.Option(
        False, "--configmap", help="Bring the script in a ConfigMap [the image has it]."
    ),
    resource: list[str] = typer.Option(
        None, metavar="NAME=QUANTITY", help="Of each node: cpu=8, memory=64Gi; repeatable."
    ),
    node_selector: list[str] = typer.Option(
        None, metavar="KEY=VALUE", help="Label of the cluster's nodes; repeatable."
    ),
    toleration: list[str] = typer.Option(
        None, metavar="KEY[=VALUE][:EFFECT]", help="Taint that is tolerated; repeatable."
    ),
    volume: list[str] = typer.Option(
        None, metavar="CLAIM:/PATH[:ro]", help="Volume; the first one gets the runs; repeatable."
    ),
    queue: str = typer.Option(None, metavar="NAME", help="LocalQueue of Kueue."),
    retries: str = typer.Option(None, metavar="N", help="New starts after a lost node [3]."),
    ttl: str = typer.Option(None, metavar="TIME", help="Delete the job so long after its end."),
    network_policy: bool = typer.Option(
        False, "--network-policy", help="Only pods of the run connect to one another."
    ),
    patch: list[str] = typer.Option(
        None, metavar="FILE", help="YAML or JSON to merge into the job; repeatable."
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Print the torchrun lines or the job, run nothing."
    ),
    explain: bool = typer.Option(False, "--explain", help="And where each choice came from."),
    estimate: bool = typer.Option(
        False, "--estimate", help="Say before the start what is expected; refuse what cannot fit."
    ),
    force: bool = typer.Option(False, "--force", help="With --estimate: start it anyway."),
) -> None:
    """Run SCRIPT on all ranks of a job until its end.

    Options come before SCRIPT; all arguments after it belong to the script.
    """
    given = dict(locals())
    for name in (
        *("quiet", "only_rank", "prefix", "fold", "json", "detach", "dry_run", "explain", "config"),
        *("debug_rank", "resume", "estimate", "force"),
    ):
        del given[name]
    _refuse_both("--fold", fold, {"--json": json})
    alone = {"--detach": detach, "--json": json, "--only-rank": only_rank, "--fold": fold}
    _refuse_both("--debug-rank", debug_rank is not None, alone)
    only_printed = dry_run or explain
    tell = _teller(as_comments=only_printed, quiet=quiet)
    asked, told = _read(given, config, tell)
    if asked.submitted_to:
        where = f"--on {asked.submitted_to}"
        others = {"--debug-rank": debug_rank is not None, "--estimate": estimate}
        _refuse_both(where, True, others)
        _tell_all(told, _teller(as_comments=False, quiet=quiet))
        shown = Shown(only_rank, prefix, fold, quiet, json)
        words = words_in_job(given, config)
        code = submit_run(asked, words, shown, only_printed=only_printed, detach=detach)
        sys.exit(code)
    _tell_all(told, tell)
    if not only_printed:
        _serve_head(asked, tell)
    prepared = _prepare(asked, tell, only_printed)
    if resume is not None and not only_printed:
        from distrun.api.resume import onto

        prepared = onto(prepared, resume)
    if estimate:
        from distrun.cli.estimate.at_launch import with_estimate

        prepared = with_estimate(prepared, force=force)
    world_size = prepared.plan.world_size
    ranks = rank_list("--only-rank", only_rank, world_size)
    if debug_rank is not None and rank_list("--debug-rank", str(debug_rank), world_size):
        prepared = replace(prepared, plan=prepared.plan.with_terminal(debug_rank))
        # No status line or prefix disturbs the debugger. Another machine's rank has no terminal:
        # what it prints comes as output.
        elsewhere = any(node.command for node in prepared.plan.nodes)
        ranks = frozenset({debug_rank} if elsewhere else ())
    if prefix is None:
        prefix = len(range(world_size) if ranks is None else ranks) > 1
    if only_printed:
        _print_plan(prepared, explain=explain)
        return
    if detach:
        _refuse_both("--detach", prepared.head is not None, {"a job whose nodes dial in": True})
        _detach(prepared)
        return
    from distrun.cli.run_to_end import run_to_end
    from distrun.cli.screen.console import Console, same_file
    from distrun.cli.screen.recorded_elsewhere import run_event
    from distrun.cli.screen.show_run import RunView

    since = wall_clock_s() if prepared.resumed else 0.0

    def view_of(run: RunDirectory) -> RunView:
        console = Console(live=debug_rank is None)
        shown = {"prefix": prefix, "fold": fold, "quiet": quiet, "as_json": json}
        view = RunView(run, console, only_ranks=ranks, since=since, **shown)
        if json:
            view.on_event(run_event(run))
        return view

    result = run_to_end(
        prepared,
        view_of,
        quiet=quiet or json,
        apart=json or not same_file(1, 2),
        tick_s=0.05 if fold else 0.25,
    )
    sys.exit(result.exit_code)


def _teller(*, as_comments: bool, quiet: bool) -> Callable[[str], None]:
    from distrun.cli.screen.console import plain, say

    if as_comments:
        return lambda line: typer.echo(plain(f"# {line}"))
    return say if not quiet else lambda _: None


def _read(
    given: dict[str, Any], config: Path | None, tell: Callable[[str], None]
) -> tuple[Asked, list[str]]:
    """Return the job, and lines about the files that it was read from."""
    from distrun.api.asked import Asked
    from distrun.spec import read

    flags = {name: value for name, value in given.items() if value not in (None, [], False)}
    flags["args"] = tuple(given["args"] or ())
    for name in ("check", "report"):
        if flags.pop(name, None) is None:  # True is the default; the config may override it
            flags[name] = False
    if "env" in flags:
        flags["env"] = assignments(flags["env"])
    flags |= where_and_actions(flags.pop("on", []))
    of_slurm, of_kubernetes = slurm_table(flags), kubernetes_table(flags)
    told: list[str] = []
    try:
        asked = Asked(*read.job(flags, config, told.append))
    except DistrunError:
        _tell_all(told, tell)
        raise
    if asked.submitted_to != "slurm":
        refuse_slurm_flags(of_slurm, os.environ.get("SLURM_JOB_ID", ""))
    if asked.submitted_to != "kubernetes":
        refuse_kubernetes_flags(of_kubernetes)
    return asked, told


def _tell_all(lines: Sequence[str], tell: Callable[[str], None]) -> None:
    for line in lines:
        tell(line)


def _serve_head(asked: Asked, tell: Callable[[str], None]) -> None:
    """Serve the head until the run ends, and exit, if this node dials in to another one."""
    from distrun.api import dialed

    if (own := dialed.node_of(asked.job, asked.sources)) is not None:
        sys.exit(dialed.serve(own, asked.job, tell))


def _prepare(asked: Asked, tell: Callable[[str], None], only_printed: bool) -> Prepared:
    from distrun.api.in_job import refusals_recorded
    from distrun.api.launch import prepare

    with refusals_recorded():
        try:
            return prepare(
                asked.job,
                asked.sources,
                asked.header,
                ask=not only_printed,
                by_platform=True,
                tell=tell,
            )
        except KeyboardInterrupt:
            tell("interrupted: no rank was started")
            raise


def _refuse_both(option: str, given: object, others: Mapping[str, object]) -> None:
    for other, is_given in others.items():
        if given and is_given:
            raise UsageError(f"{option} and {other} exclude each other", "leave one of them out")


def _print_plan(prepared: Prepared, *, explain: bool) -> None:
    from distrun.plan import show

    lines = list(show.dry_run(prepared.plan))
    if explain:
        lines += show.explain(prepared.plan.settings)
    typer.echo("\n".join(lines))


def _detach(prepared: Prepared) -> None:
    from distrun.api.launch import start
    from distrun.cli.screen.console import say

    client = start(prepared, command=sys.argv, detached=True)
    if not any(client.events()):  # its first event says that it runs
        raise DistrunError(
            "the supervisor ended before it had begun", f"see {client.run.supervisor_log}"
        )
    say(f"running as {client.run.run_id}, supervisor pid {client.pid}")
    runs_dir = prepared.job.runs_dir
    elsewhere = "" if str(runs_dir) == "runs" else f" --runs-dir {shlex.quote(str(runs_dir))}"
    say(f"follow it with: distrun logs {client.run.run_id} -f{elsewhere}")
