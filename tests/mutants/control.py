"""Bugs in the rooms that start and watch a run."""

from __future__ import annotations

from tests.mutants.patch import Patch

SPEC = (
    Patch(
        "spec/fields.py",
        '"h": 3600.0',
        '"h": 60.0',
        "wrong unit",
        "--time-limit 2h ends the run after two minutes.",
        ("unit/spec/test_fields.py",),
    ),
    Patch(
        "spec/fields.py",
        "    if low > high:",
        "    if low < high:",
        "inverted condition",
        "--nodes 1:4 is refused, and 4:1 is not.",
        ("unit/spec/test_fields.py",),
    ),
    Patch(
        "spec/possible.py",
        '"_percent": (0, 100)',
        '"_percent": (0, 1)',
        "wrong unit",
        "A recorded snapshot of a busy GPU is refused as damaged.",
        ("unit/spec/test_check.py", "unit/checks/test_recorded.py"),
    ),
)
PLAN = (
    Patch(
        "plan/model.py",
        "timeout={max(1, round(self.join_timeout_s))}",
        "timeout={max(1, round(1000 * self.join_timeout_s))}",
        "wrong unit",
        "torchrun waits for a missing node for a week.",
        ("unit/plan/test_golden.py", "unit/plan/test_model.py"),
    ),
    Patch(
        "plan/layout.py",
        "names[i * share : (i + 1) * share]",
        "names[i : i + share]",
        "off by one",
        "Two emulated nodes get the same GPU.",
        ("unit/plan/test_layout.py",),
    ),
    Patch(
        "plan/layout.py",
        "nproc * (nnodes if draft.site.emulated else 1)",
        "nproc",
        "dropped part",
        "The ranks of emulated nodes take more threads than there are cores.",
        ("unit/plan/test_layout.py",),
    ),
)
SCHEDULERS = (
    Patch(
        "schedulers/local.py",
        'record.state == "running" and record.supervisor.signal(signal.SIGTERM)',
        'record.state != "running" and record.supervisor.signal(signal.SIGTERM)',
        "inverted condition",
        "distrun stop says of a running run that it is not running.",
        ("unit/schedulers/test_local.py",),
    ),
    Patch(
        "schedulers/local.py",
        "signal(signal.SIGTERM)",
        "signal(signal.SIGKILL)",
        "wrong order",
        "distrun stop kills the supervisor before the ranks have saved.",
        ("unit/schedulers/test_local.py",),
    ),
)
SUPERVISE = (
    Patch(
        "supervise/world.py",
        "if joined == of and not self.stopping:",
        "if joined >= of - 1 and not self.stopping:",
        "off by one",
        "The ranks start before the last node has joined.",
        ("unit/supervise/test_world.py",),
    ),
    Patch(
        "supervise/world.py",
        "kill_at = time.monotonic() + grace_s + overtime_s",
        "kill_at = time.monotonic() + grace_s",
        "off by one",
        "An agent is killed in the moment in which it kills its ranks, and is told as lost.",
        ("unit/supervise/test_world.py",),
    ),
    Patch(
        "supervise/world.py",
        "min(self._kill_agents_at or kill_at, kill_at)",
        "max(self._kill_agents_at or kill_at, kill_at)",
        "inverted condition",
        "Each further signal gives a stuck node more time.",
        ("unit/supervise/test_world.py",),
    ),
    Patch(
        "supervise/world.py",
        "                self.where.ask_before_stop(self.agents)  # one of them is awaited\n",
        "                pass\n",
        "dropped part",
        "After a timeout nobody knows where the rank was that all waited for.",
        ("unit/supervise/test_world.py",),
    ),
    Patch(
        "supervise/whereabouts.py",
        "        if answer.stacks and self._stopped:\n",
        "        if answer.stacks:\n",
        "dropped part",
        "Where the ranks were an hour ago is told as where they were at the end.",
        ("unit/supervise/test_whereabouts.py",),
    ),
    Patch(
        "supervise/supervisor.py",
        "        write_stacks(self._run, stacks, self._complain)\n",
        "",
        "dropped part",
        "Whoever asks for stacks reads those of an earlier time.",
        ("process/test_stacks.py",),
    ),
    Patch(
        "supervise/supervisor.py",
        "elif repeats(self._first_signal[0], signum, time.monotonic() - self._first_signal[1]):",
        "elif False:",
        "dropped part",
        "A scheduler's SIGTERM, which comes twice at once, kills the ranks before they save.",
        ("unit/supervise/test_supervisor.py",),
    ),
    Patch(
        "supervise/supervisor.py",
        "        self._metrics.close()\n",
        "",
        "missing flush",
        "The last step of a long run is not in metrics.jsonl.",
        ("unit/supervise/test_supervisor.py",),
    ),
    Patch(
        "supervise/supervisor.py",
        "            if not self._order.detached:\n",
        "            if self._order.detached:\n",
        "inverted condition",
        "A detached run ends with the shell, and another one goes on without its launcher.",
        ("unit/supervise/test_supervisor.py",),
    ),
    Patch(
        "supervise/ending.py",
        "            ExitCode.JOIN_TIMEOUT,\n"
        '            f"{len(world.missing)} of {len(world.agents)} nodes did not join within"',
        "            ExitCode.MACHINE,\n"
        '            f"{len(world.missing)} of {len(world.agents)} nodes did not join within"',
        "swallowed error",
        "A script cannot tell a node that is missing from a machine that lacks something.",
        ("unit/supervise/test_ending.py",),
    ),
    Patch(
        "supervise/observer.py",
        ' or event["event"] == "ended":',
        ":",
        "dropped part",
        "A launcher that was not read for long never hears how the run ended.",
        ("unit/supervise/test_observer.py",),
    ),
    Patch(
        "supervise/client.py",
        "            silence.heard()\n",
        "",
        "dropped part",
        "The launcher kills a healthy supervisor after 30 s.",
        ("unit/supervise/test_client.py",),
    ),
    Patch(
        "supervise/metrics_file.py",
        "if 2 * each.nbytes > longest:",
        "if 2 * each.nbytes < longest:",
        "inverted condition",
        "Evaluations are thinned instead of steps, and the file grows on.",
        ("unit/supervise/test_metrics_file.py",),
    ),
)
RUNS = (
    Patch(
        "runs/place.py",
        "            and start_time(self.pid) == self.start\n",
        "",
        "dropped part",
        "A process that got the pid of a lost supervisor counts as it, and is signalled.",
        ("unit/runs/test_listing.py", "unit/runs/test_record.py"),
    ),
    Patch(
        "runs/listing.py",
        "key=lambda pair: pair[1].started_at, reverse=True)",
        "key=lambda pair: pair[1].started_at)",
        "wrong order",
        "distrun logs latest shows the oldest run.",
        ("unit/runs/test_listing.py",),
    ),
    Patch(
        "runs/files.py",
        "if len(data) > limit_nbytes:",
        "if len(data) >= limit_nbytes:",
        "off by one",
        "A file of exactly the limit is refused.",
        ("unit/runs/test_files.py",),
    ),
)
PROBE = (
    Patch(
        "probe/host_memory.py",
        "return int(value.split()[0]) << 10",
        "return int(value.split()[0])",
        "wrong unit",
        "A machine has a thousandth of its memory.",
        ("unit/probe/test_host_memory.py",),
    ),
    Patch(
        "probe/cgroup.py",
        "return min(quotas, default=None)",
        "return max(quotas, default=None)",
        "inverted condition",
        "A container with 2 cores below a pod with 8 counts 8.",
        ("unit/probe/test_cgroup.py",),
    ),
    Patch(
        "probe/kernel_log.py",
        "yield uptime_s - int(entry[1]) / 1e6, entry[2]",
        "yield uptime_s - int(entry[1]) / 1e3, entry[2]",
        "wrong unit",
        "An Xid of last week fails the check of today.",
        ("unit/probe/test_kernel_log.py",),
    ),
)
CHECKS = (
    Patch(
        "checks/host/memory.py",
        "share = left / job.nproc_per_node",
        "share = left",
        "dropped part",
        "Memory for one rank passes for 64 of them.",
        ("unit/checks/test_boundaries.py", "unit/checks/test_cases.py"),
    ),
    Patch(
        "checks/nodes/clock_offset.py",
        "elif abs(offset_s) - error_s > limits.clock_offset_s:",
        "elif abs(offset_s) + error_s > limits.clock_offset_s:",
        "inverted condition",
        "A slow network is told as a clock that is wrong.",
        ("unit/checks/test_boundaries.py", "unit/checks/test_cases.py"),
    ),
    Patch(
        "checks/judge.py",
        "key=lambda finding: -finding.severity",
        "key=lambda finding: finding.severity",
        "wrong order",
        "The failure stands below forty notes.",
        ("unit/checks/test_judge.py",),
    ),
)
DIAGNOSE = (
    Patch(
        "diagnose/verdict.py",
        "(end for end in ends if end.failed), key=lambda end: end.at)",
        "(end for end in ends if end.failed), key=lambda end: end.rank)",
        "wrong order",
        "The lowest rank that failed is blamed, not the first.",
        ("unit/diagnose/test_verdict.py",),
    ),
    Patch(
        "diagnose/verdict.py",
        "within_ms=round(1000 * max(",
        "within_ms=round(max(",
        "wrong unit",
        "All ranks failed within 0 ms.",
        ("unit/diagnose/test_verdict.py",),
    ),
    Patch(
        "diagnose/verdict.py",
        "signatures = [{end.signature for end in ends} for ends in attempts[-2:]]",
        "signatures = [{end.signature for end in ends} for ends in attempts[:2]]",
        "off by one",
        "A run is not restarted because of what its first two attempts had in common.",
        ("unit/diagnose/test_verdict.py",),
    ),
)
API = (
    Patch(
        "nodes/reach.py",
        "error_s, offset_s = min(rounds)",
        "error_s, offset_s = max(rounds)",
        "inverted condition",
        "The offset of a clock is that of the slowest of three answers.",
        ("unit/nodes/test_reach.py",),
    ),
    Patch(
        "api/runs.py",
        "if _is_past(found)][keep:]:",
        "if _is_past(found)][keep + 1 :]:",
        "off by one",
        "ps --prune keeps one run more than was asked for.",
        ("unit/api/test_runs.py",),
    ),
    Patch(
        "api/runs.py",
        "over = watch.over() if watch else _read(run).is_over\n"
        "        data = _from(run.events, offset)",
        "data = _from(run.events, offset)\n"
        "        over = watch.over() if watch else _read(run).is_over",
        "wrong order",
        "distrun logs --follow may miss the last events.",
        ("unit/api/test_runs.py",),
    ),
)
CLI = (
    Patch(
        "cli/run_to_end.py",
        "if self._stops > 1 and self._kill_at is None:",
        "if self._stops > 0 and self._kill_at is None:",
        "off by one",
        "One Ctrl-C kills the supervisor after 2.5 s, whatever the grace.",
        ("unit/cli/test_patience.py",),
    ),
    Patch(
        "cli/screen/console.py",
        "cut(plain(text), max(0, columns - 1))",
        "cut(plain(text), max(0, columns))",
        "off by one",
        "The status line wraps, and each update leaves a line behind.",
        ("unit/cli/test_console.py",),
    ),
    Patch(
        "cli/screen/tail.py",
        "        if rest := os.read(file, _READ_NBYTES):\n",
        '        if rest := b"":\n',
        "missing flush",
        "The last lines before a rotation are not shown.",
        ("unit/cli/test_tail.py",),
    ),
    Patch(
        "cli/screen/status.py",
        "left_s = (total - step) * pace",
        "left_s = total * pace",
        "wrong unit",
        "The time left is always that of the whole run.",
        ("unit/cli/test_status.py",),
    ),
    Patch(
        "cli/screen/console.py",
        "    except (OSError, ValueError):\n        pass  # nobody reads it",
        "    except ValueError:\n        pass  # nobody reads it",
        "swallowed error",
        "A closed stderr ends the launcher in the middle of a run.",
        ("unit/cli/test_console.py",),
    ),
)
CONTROL = (*SPEC, *PLAN, *SCHEDULERS, *SUPERVISE, *RUNS, *PROBE, *CHECKS, *DIAGNOSE, *API, *CLI)
