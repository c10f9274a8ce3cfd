"""Runs that were submitted to Kubernetes: submitted, stopped, listed. See kubernetes_watch too."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distrun.api import stopper
from distrun.api.kubernetes_watch import Watch
from distrun.api.mirror import OVER
from distrun.checks.required import require_runs_dir
from distrun.errors import DistrunError, MachineError, UsageError
from distrun.runs import directory, known, record
from distrun.runs.directory import RunDirectory
from distrun.runs.record import RunRecord
from distrun.schedulers import kube_refusals
from distrun.schedulers.kube_access import Access
from distrun.schedulers.kube_refusals import Refusal, Unreachable
from distrun.schedulers.kube_server import APIS, Object, Server, patiently, reference_to
from distrun.schedulers.pod_states import SELECTORS

Tell = Callable[[str], None]
NAME = "kubernetes"
UNKNOWN = "unknown to this machine"
"""The state of a run whose server does not answer."""
_SUBMIT_S = 30.0
"""A server that is busy or away is asked again for so long."""
_UNDO_S = 10.0
_POLL_S = 0.1
_STARTED = ("Running", "Starting")
_READY_S = 10.0
"""The log is read within this time, before a stop takes the pod away."""
_OVERTIME_S = 30.0
"""How long after the ranks' grace pods are killed: the kubelet needs some time of its own."""
_LOOK_S = 30.0
_WITH_JOB = ("Service", "Secret", "ConfigMap", "NetworkPolicy")
"""Kinds that are deleted with the job."""
_KINDS = {kind: name for name, (_, kind) in APIS.items()}


def is_ours(found: RunRecord) -> bool:
    """Return whether a run was submitted to Kubernetes."""
    return found.job.get("on") == NAME and found.job.get("kind") in APIS


def is_over(found: RunRecord) -> bool:
    """Return whether a run has ended, and its job will not be started again."""
    return found.ended_at is not None and found.job.get(OVER) is True


def submit(
    objects: Sequence[dict[str, Any]], access: Access, runs_dir: Path, found: RunRecord
) -> tuple[RunDirectory, RunRecord]:
    """Make the run directory, and create the objects in their order.

    Services, Secrets, ConfigMaps and NetworkPolicies get the job as their owner, so that they are
    deleted with it. If one is refused, those before it are deleted.

    Args:
        objects: Plain dicts; one is a Job, JobSet or TrainJob.
        access: The server.
        runs_dir: Where runs are recorded.
        found: The record, without `job`.

    Returns:
        The run and its record, whose `job` names the job.

    Raises:
        UsageError: The run directory cannot be made, or the kubeconfig cannot be used.
        MachineError: The server refuses an object; then nothing is left of it here and there. Or
            it is not known whether it was created; then the message says so.
    """
    server = Server(access)
    try:
        try:
            run = directory.create(runs_dir, found.run_id)
        except OSError as error:
            require_runs_dir(runs_dir, error.strerror or str(error))
            raise
        job = next(each for each in objects if each["kind"] in _KINDS)
        named = {"on": NAME, **server.access.to_json(), "kind": _KINDS[job["kind"]]}
        found = replace(found, job={**named, "name": job["metadata"]["name"]})
        try:
            record.write(run, found)
            _create_all(server, objects, job)
        except BaseException:  # Ctrl-C too: nothing is left behind
            shutil.rmtree(run.path, ignore_errors=True)
            raise
    finally:
        server.close()
    known.add(runs_dir)
    return run, found


def _create_all(server: Server, objects: Sequence[dict[str, Any]], job: dict[str, Any]) -> None:
    created: list[Object] = []
    owner: Object | None = None
    try:
        for each in objects:
            if owner is not None and each["kind"] in _WITH_JOB:
                meta = {**each["metadata"], "ownerReferences": [reference_to(owner)]}
                each = {**each, "metadata": meta}
            created.append(each)  # before: an answer that is lost does not mean that it failed
            answer = _create(server, each, created)
            if each["kind"] in _KINDS:
                owner = {**job, "metadata": {**job["metadata"], **answer.get("metadata", {})}}
                for earlier in created[:-1]:
                    if earlier["kind"] in _WITH_JOB:
                        _own(server, earlier, owner)
    except BaseException as error:
        left = _delete_all(server, created)
        if left and isinstance(error, DistrunError):
            error.hint = f"not deleted: {', '.join(left)}" + (f"; {error.hint}" * bool(error.hint))
        raise


def _create(server: Server, each: Object, created: list[Object]) -> Object:
    """Create an object; if the answer was lost, look whether it is there."""
    lost: Refusal | Unreachable
    try:
        return patiently(lambda: server.create(each), _SUBMIT_S, creates=True)
    except Refusal as error:
        lost, perhaps = error, error.status in kube_refusals.PERHAPS_DONE
    except Unreachable as error:
        lost, perhaps = error, error.sent and error.passes
    if not perhaps:
        created.pop()  # it is not there, or is not ours
        raise lost
    api, kind, name = each["apiVersion"], each["kind"], each["metadata"]["name"]
    try:
        found = patiently(lambda: server.read(api, kind, name), _SUBMIT_S)
    except Refusal as error:
        if error.status == kube_refusals.GONE:
            created.pop()
        raise lost from None
    labels = found.get("metadata", {}).get("labels") or {}
    asked = each["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in asked.items()):
        created.pop()
        raise UsageError(f"{kind} {name} exists already, and is not of this run", "another name")
    return found


def _own(server: Server, each: Object, owner: Object) -> None:
    patiently(lambda: server.own(each, owner), _SUBMIT_S)


def _delete_all(server: Server, created: Sequence[Object]) -> list[str]:
    """Delete what was created, the last first; return what could not be deleted."""
    left, patience_s = [], _UNDO_S
    for each in reversed(created):
        try:
            _delete(server, each, patience_s)
        except DistrunError as error:
            left.append(f"{each['kind']} {each['metadata']['name']}")
            patience_s = 0.0 if isinstance(error, Unreachable) else patience_s
    return left


def _delete(server: Server, each: Object, patience_s: float) -> None:
    api, kind, name = each["apiVersion"], each["kind"], each["metadata"]["name"]
    patiently(lambda: server.delete(api, kind, name, propagationPolicy="Background"), patience_s)


class Stopper(stopper.Stopper):
    """Ends the job of a run: as `kubectl delete` does, and after the grace by force.

    Deleting the job sends SIGTERM to every pod, which has its terminationGracePeriodSeconds; the
    job stays until they have ended (propagationPolicy Foreground), and none is made in their place.
    """

    def __init__(self, _run: RunDirectory, found: RunRecord) -> None:
        super().__init__()
        self._found = found

    def _ask(self) -> float:
        self._delete_job("Foreground")
        return self._found.grace_s + _OVERTIME_S

    def _force(self) -> None:
        job = self._found.job
        self._delete_job("Background")
        with _opened(self._found) as server:
            query = {"labelSelector": f"{SELECTORS[job['kind']]}={job['name']}"}
            pods, _ = patiently(lambda: server.list("v1", "Pod", query), _LOOK_S)
            for pod in pods:
                name = pod["metadata"]["name"]
                server.delete("v1", "Pod", name, gracePeriodSeconds=0)

    def _delete_job(self, policy: str) -> None:
        job = self._found.job
        api, kind = APIS[job["kind"]]
        with _opened(self._found) as server:
            patiently(
                lambda: server.delete(api, kind, job["name"], propagationPolicy=policy), _LOOK_S
            )


class _opened:
    """A server for some requests."""

    def __init__(self, found: RunRecord) -> None:
        self._server = Server(Access.from_json(found.job))

    def __enter__(self) -> Server:
        return self._server

    def __exit__(self, *_: object) -> None:
        self._server.close()


def stop(
    run: RunDirectory, found: RunRecord, *, force: bool = False, wait_s: float | None = None
) -> RunRecord:
    """Stop the job of a run and wait for its end; see `api.runs.stop`.

    Raises:
        UsageError: It has ended.
        MachineError: The server does not answer.
    """
    if is_over(found):
        raise UsageError(f"run {run.run_id} is not running: it is {found.outcome}")
    ending = Stopper(run, found)
    limit_s = found.grace_s + 2 * _OVERTIME_S if wait_s is None else wait_s
    watch = Watch(run)
    try:
        ready_at = time.monotonic() + _READY_S
        while not watch.over() and not watch.reads and time.monotonic() < ready_at:
            time.sleep(_POLL_S)
        stopper.stop_and_wait(ending, watch.over, force=force, limit_s=limit_s)
    finally:
        watch.close()
    return record.read(run)


def bring_up_to_date(run: RunDirectory, *, within_s: float = _LOOK_S) -> str:
    """Read what the head's pod has printed meanwhile; return the job's state in words.

    Args:
        run: The run.
        within_s: For how long.

    Raises:
        MachineError: The server does not answer.
        UsageError: The kubeconfig cannot be used.
    """
    watch = Watch(run, follow=False)
    try:
        deadline = time.monotonic() + within_s
        while not watch.over() and not watch.has_caught_up:
            if watch.problem or time.monotonic() > deadline:
                raise MachineError(watch.problem or "the Kubernetes server does not answer")
            time.sleep(_POLL_S)
        return watch.state
    finally:
        watch.close()


class Jobs:
    """The states of several runs, for a list of them: a server that does not answer is asked once.

    Args:
        tell: Called with a line if it does not.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._silent: set[Access] = set()

    def state_of(self, run: RunDirectory, found: RunRecord) -> tuple[RunRecord, str]:
        """Return a run's record, brought up to date, and its state in words."""
        if is_over(found):
            return found, found.state
        access = Access.from_json(found.job)
        try:
            if access not in self._silent:
                words = bring_up_to_date(run)
                found = record.read(run)
                if found.ended_at is None:
                    state = "running" if words in _STARTED else f"pending ({words or 'None'})"
                    return found, state
        except DistrunError as error:
            self._silent.add(access)
            self._tell(error.message)
        return found, found.state if found.ended_at is not None else UNKNOWN
