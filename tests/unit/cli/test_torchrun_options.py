"""Options of torchrun before the script: taken, left out, or answered with what to use instead."""

from __future__ import annotations

import shlex

import pytest
from torch.distributed.run import get_args_parser

from distrun.cli.app import app
from distrun.cli.torchrun_options import OPTIONS, SHORT, as_own_options
from distrun.errors import UsageError
from tests.unit.cli.commands import command_of

OWN = {
    name: not getattr(param, "is_flag", False)
    for param in command_of(app, "launch").params
    for name in (*param.opts, *param.secondary_opts)
    if name.startswith("-")
}


def translated(line: str) -> str:
    return shlex.join(as_own_options(shlex.split(line), OWN))


def test_every_option_of_torchrun_is_in_the_table() -> None:
    known = {"--help", *OPTIONS}
    for action in get_args_parser()._actions:
        names = {name.replace("_", "-") for name in action.option_strings if name[:2] == "--"}
        assert names <= known, f"torchrun has {names}: say in OPTIONS what becomes of it"
        for name in names & OPTIONS.keys():
            assert OPTIONS[name].flag == (action.nargs == 0), name
        for name in action.option_strings:
            if name[:2] != "--" and name not in OWN and name != "-h":
                assert SHORT[name] in names


def test_what_the_table_names_of_launch_is_there() -> None:
    for name, option in OPTIONS.items():
        if option.own:
            assert OWN[option.own] != option.flag, name
        assert option.own or option.instead or option.fits is not None, name


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ("--nnodes=2 --nproc_per_node 4 t.py", "--nodes 2 --nproc-per-node=4 t.py"),
        ("--nnodes 1:4 --max_restarts=3 t.py", "--nodes 1:4 --max-restarts=3 t.py"),
        ("--standalone --nproc-per-node=gpu t.py", "--nproc-per-node=gpu t.py"),
        ("--nnodes=1 --node_rank=0 --master_addr=127.0.0.1 --master_port=1234 t.py",
         "--nodes 1 --master-port=1234 t.py"),
        ("--rdzv_backend c10d --rdzv_endpoint localhost:0 --rdzv_id 7 t.py", "t.py"),
        ("--rdzv-backend=static --rdzv-endpoint=[::1]:29400 t.py", "t.py"),
        ("--local_addr localhost t.py", "t.py"),
        ("--log_dir 'a b' t.py", "--runs-dir 'a b' t.py"),
        ("-t 3 -r0 --tee=0:1,1:3 t.py", "t.py"),
        ("--monitor_interval 5 --role default t.py", "t.py"),
        ("--event_log_handler null --run_path t.py", "t.py"),
        ("--signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT t.py", "t.py"),
        ("--shutdown_timeout 90 t.py", "--grace 90 t.py"),
        ("--local-ranks-filter 0,3 t.py", "--only-rank 0,3 t.py"),
        ("--duplicate-stdout-filters= t.py", "t.py"),
        ("--start_method=spawn -m pkg.train", "--start-method=spawn -m pkg.train"),
        ("--no_python echo --tee 3", "--no-python echo --tee 3"),
        # of our own options only the name is touched
        ("--time_limit 5m --env A_B=1 --env=A_B=--tee t.py",
         "--time-limit 5m --env A_B=1 --env=A_B=--tee t.py"),
        ("-q -d t.py", "-q -d t.py"),
        ("--no_check t.py", "--no-check t.py"),
        # the script and what follows it are its own
        ("t.py --nnodes 3 --nproc_per_node 2", "t.py --nnodes 3 --nproc_per_node 2"),
        ("--nodes 2 -- --odd_name.py --role x", "--nodes 2 -- --odd_name.py --role x"),
        ("my_script.py", "my_script.py"),
        ("", ""),
        ("--nproc_per_node", "--nproc-per-node"),
        ("--log-dir x --tee 3 --redirects 3 -r 3 t.py", "--runs-dir x t.py"),
    ],
)  # fmt: skip
def test_a_line_for_torchrun_becomes_one_of_launch(given: str, own: str) -> None:
    assert shlex.split(translated(given)) == shlex.split(own.replace("=4 ", " 4 "))


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("--num_processes 8 t.py", "--nproc-per-node N, the ranks of each node"),
        ("--num_gpus=4 t.py", "--nproc-per-node N"),
        ("--include localhost:0,2 t.py", "--gpus 0,2; with several nodes --hosts A,B"),
        ("--mixed-precision bf16 t.py", "--env ACCELERATE_MIXED_PRECISION=bf16"),
    ],
)
def test_an_option_of_another_launcher_is_answered_with_ours(given: str, hint: str) -> None:
    with pytest.raises(UsageError, match="is of accelerate or deepspeed") as refused:
        translated(given)
    assert refused.value.hint == hint


@pytest.mark.parametrize(
    ("given", "says", "hint"),
    [
        ("--node_rank=1 --nnodes 2 t.py --x 'a b'", "--node-rank: one launch starts every node",
         "--nodes 2 t.py --x 'a b'"),
        ("--nnodes=2 --node_rank=0 t.py", "--node-rank: one launch starts", "--nodes 2 t.py"),
        ("--master_addr 10.0.0.1 --node-rank 1 t.py", "--master-addr and --node-rank: one", "t.py"),
        ("--nnodes 2 --rdzv-endpoint=h:1 --rdzv-id 3 t.py", "--rdzv-endpoint and --rdzv-id: one",
         "--nodes 2 t.py"),
        ("--rdzv_backend etcd t.py", "--rdzv-backend: one launch starts", "t.py"),
        ("--rdzv-conf join_timeout=9 t.py", "`--join-timeout TIME`", "t.py"),
        ("--local-addr 10.0.0.1 t.py", "--local-addr: one launch starts", "t.py"),
        ("--redirects=1 --role trainer t.py", "--role: all ranks", "t.py"),
        ("--event-log-handler x t.py", "events.jsonl", "t.py"),
        ("--logs_specs=x t.py", "--logs-specs: each rank's output", "t.py"),
        ("--numa-binding node t.py", "sched_setaffinity", "t.py"),
        ("--signals-to-handle SIGUSR1 t.py", "stops the ranks first", "t.py"),
        ("--virtual-local-rank t.py", "CUDA_VISIBLE_DEVICES", "t.py"),
        ("--nnodes 2 --local-ranks-filter 0 t.py", "`--only-rank 0,3`", "--nodes 2 t.py"),
        ("--log-line-prefix-template x t.py", "`--no-prefix`", "t.py"),
        ("--print-completion bash t.py", "--install-completion", "t.py"),
        ("--duplicate-stderr-filters warn t.py", "distrun logs RUN", "t.py"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_answered_with_a_line_that_works(
    given: str, says: str, hint: str
) -> None:
    with pytest.raises(UsageError) as refused:
        translated(given)
    assert says in refused.value.message
    assert refused.value.hint == f"distrun launch {hint}"
    assert translated(hint) == hint  # and is taken as it stands
