"""What Kubernetes' conditions and reasons mean for a run: tables of data, and who is the head.

Sources: the API reference of v1.37 (PodStatus, ContainerState, JobStatus), "Pod Lifecycle" and
"Jobs" of kubernetes.io/docs/concepts, api/jobset/v1alpha2 of kubernetes-sigs/jobset, and
pkg/apis/trainer/v1alpha1 of kubeflow/trainer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from distrun.errors import ExitCode

Object = Mapping[str, Any]
INDEX = "batch.kubernetes.io/job-completion-index"
SELECTORS = {
    "job": "batch.kubernetes.io/job-name",
    "jobset": "jobset.sigs.k8s.io/jobset-name",
    "trainjob": "jobset.sigs.k8s.io/jobset-name",  # its JobSet has its name
}
"""Kind of the job -> the label that its pods have; its value is the name of the job."""
_GROUP, _GROUP_INDEX = "jobset.sigs.k8s.io/replicatedjob-name", "jobset.sigs.k8s.io/job-index"
_RESTARTS = "jobset.sigs.k8s.io/restart-attempt"
_TRAINS = "trainer.kubeflow.org/trainjob-ancestor-step"
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_BY_SIGKILL = 128 + 9
_WELL = ("Complete", "Completed", "SuccessCriteriaMet")
_BADLY = ("Failed", "FailureTarget")
FIXABLE_S, HOPELESS_S = 300.0, 20.0
NOT_STARTING: Mapping[str, float] = {
    "ImagePullBackOff": FIXABLE_S,
    "ErrImagePull": FIXABLE_S,
    "RegistryUnavailable": FIXABLE_S,
    "CreateContainerConfigError": FIXABLE_S,
    "CreateContainerError": FIXABLE_S,
    "RunContainerError": FIXABLE_S,
    "InvalidImageName": HOPELESS_S,
    "ErrImageNeverPull": HOPELESS_S,
}
"""Why a container does not start -> after how many seconds the run is given up."""
_LOST_NODE = ("DeletionByTaintManager", "DeletionByPodGC", "NodeLost", "NodeShutdown")
_NO_REASON = {"", "ContainerCreating", "PodInitializing"}


class Ending(NamedTuple):
    """How a job ended by what Kubernetes says."""

    outcome: str
    exit_code: int
    said: str


class Waiting(NamedTuple):
    """Why a pod does not run."""

    reason: str
    message: str


def head_of(pods: Iterable[Object]) -> Object | None:
    """Return the pod that node 0 of the run is, or was; the newest if it was replaced."""
    found = [pod for pod in pods if _is_first(pod)]
    trains = [pod for pod in found if _labels(pod).get(_TRAINS) == "trainer"]
    candidates = trains or found
    if not trains:  # of a JobSet, the group of the other pods with that index comes later
        groups = sorted({_labels(pod).get(_GROUP, "") for pod in found})
        wanted = "node" if "node" in groups else (groups or [""])[0]
        candidates = [pod for pod in found if _labels(pod).get(_GROUP, "") == wanted]
    return max(candidates, key=_age, default=None)


def _is_first(pod: Object) -> bool:
    notes = {**_meta(pod).get("annotations", {}), **_labels(pod)}
    return notes.get(INDEX) == "0" and notes.get(_GROUP_INDEX, "0") == "0"


def _age(pod: Object) -> tuple[bool, str, str]:
    meta = _meta(pod)
    alive = not meta.get("deletionTimestamp")
    return alive, str(meta.get("creationTimestamp", "")), str(meta.get("uid", ""))


def container_of(pod: Object) -> str:
    """Return the name of the container that the launch runs in."""
    names = [each["name"] for each in pod.get("spec", {}).get("containers", [])]
    asked = _meta(pod).get("annotations", {}).get(_DEFAULT_CONTAINER)
    for name in (asked, "distrun", "node"):
        if name in names:
            return str(name)
    return names[0] if names else ""


def container_state(pod: Object) -> tuple[dict[str, Any], int]:
    """Return the state of the launch's container, and how often it was restarted."""
    name = container_of(pod)
    for status in pod.get("status", {}).get("containerStatuses") or ():
        if status.get("name") == name:
            return status.get("state") or {}, int(status.get("restartCount", 0))
    return {}, 0


def attempts_before(pod: Object) -> int:
    """Return how often a JobSet was restarted before it made this pod; 0 for other jobs."""
    told = {**_meta(pod).get("annotations", {}), **_labels(pod)}.get(_RESTARTS, "")
    return int(told) if told.isdecimal() else 0


def has_log(pod: Object) -> bool:
    """Return whether the launch's container has begun."""
    state, restarts = container_state(pod)
    return "running" in state or "terminated" in state or restarts > 0


def has_ended(pod: Object) -> bool:
    """Return whether the pod will not run again."""
    over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return over or "terminated" in container_state(pod)[0]


def waiting(pod: Object) -> Waiting | None:
    """Return why a pod does not run; None if it runs or has ended."""
    status = pod.get("status", {})
    if status.get("phase", "Pending") != "Pending":
        return None
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Waiting(condition.get("reason") or "Unschedulable", condition.get("message", ""))
    if not any(each.get("type") == "PodScheduled" for each in status.get("conditions") or ()):
        return Waiting("Scheduling", "")
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    found = [state for each in every if (state := (each.get("state") or {}).get("waiting"))]
    for state in sorted(found, key=lambda each: each.get("reason", "") in _NO_REASON):
        return Waiting(state.get("reason") or "ContainerCreating", state.get("message", ""))
    return Waiting("ContainerCreating", "")


def is_silent(pod: Object) -> bool:
    """Return whether a pod waits and its state does not say why: its events may."""
    found = waiting(pod)
    return found is not None and found.reason in _NO_REASON


def current(pods: Sequence[Object]) -> list[Object]:
    """Return the pods that have not been replaced, in the order of their names."""
    newest: dict[tuple[str, ...], Object] = {}
    for pod in sorted(pods, key=_age):
        labels = _labels(pod)
        newest[labels.get(_GROUP, ""), labels.get(_GROUP_INDEX, ""), labels.get(INDEX, "")] = pod
    return sorted(newest.values(), key=lambda pod: str(_meta(pod).get("name")))


def taken_away(pod: Object) -> str:
    """Return what Kubernetes did to a pod, as a sentence; "" if it ended by itself, or runs."""
    ending = _of_pod(pod)
    return ending.said if ending is not None and ending.outcome != "failed" else ""


def newest_warning(events: Iterable[Object], names: Sequence[str]) -> str:
    """Return the message of the newest event of type Warning about one of the objects."""
    found = [
        event
        for event in events
        if event.get("type") == "Warning"
        and (event.get("involvedObject") or {}).get("name") in names
    ]
    newest = max(found, key=lambda event: str(event.get("lastTimestamp") or ""), default={})
    return ": ".join(filter(None, (newest.get("reason", ""), newest.get("message", ""))))


def decision(job: Object) -> tuple[bool, str, str] | None:
    """Return whether the job has succeeded, the reason and the message; None: it goes on."""
    for condition in job.get("status", {}).get("conditions") or ():
        if condition.get("status") == "True" and condition.get("type") in (*_WELL, *_BADLY):
            well = condition["type"] in _WELL
            return well, condition.get("reason", ""), condition.get("message", "")
    return None


def is_suspended(job: Object) -> bool:
    """Return whether the job waits in a queue, such as Kueue's."""
    return bool(job.get("spec", {}).get("suspend"))


def ending_of(job: Object | None, head: Object | None) -> Ending:
    """Return how a run ended whose head has not told it.

    Args:
        job: The job; None if it was deleted.
        head: The pod of node 0, as it was last seen.
    """
    found = decision(job) if job is not None else None
    if found is not None and found[1] == "DeadlineExceeded":
        said = "Kubernetes stopped the job at its activeDeadlineSeconds"
        return Ending("time limit", ExitCode.TIME_LIMIT, said)
    if head is not None and (ending := _of_pod(head)) is not None:
        return ending
    if job is None:
        return Ending("cancelled", ExitCode.TERMINATED, "the job was deleted")
    if found is not None and not found[0]:
        said = ": ".join(filter(None, found[1:])) or "Kubernetes says no reason"
        return Ending("failed", 1, f"the job failed: {said}")
    return Ending("supervisor lost", ExitCode.INTERNAL, "the head ended without a last word")


def _of_pod(pod: Object) -> Ending | None:
    status, name = pod.get("status", {}), _meta(pod).get("name", "")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return _disrupted(name, condition.get("reason", ""), condition.get("message", ""))
    if status.get("reason") in ("Evicted", "Preempting", *_LOST_NODE):
        return _disrupted(name, status["reason"], status.get("message", ""))
    ended = container_state(pod)[0].get("terminated")
    if not ended:
        return None
    if ended.get("reason") == "OOMKilled":
        said = f"pod {name} was killed: it used more memory than its limit (OOMKilled)"
        return Ending("out of memory", _BY_SIGKILL, said)
    if ended.get("reason") in ("ContainerCannotRun", "StartError"):
        said = f"pod {name} could not be started: {ended.get('message', '')}"
        return Ending("not started", ExitCode.MACHINE, said)
    if code := int(ended.get("exitCode", 0)):
        return Ending("failed", code, f"the container of pod {name} ended with {code}")
    return None


def _disrupted(name: str, reason: str, message: str) -> Ending:
    why = f"{reason}: {message}" if message else reason
    if reason in _LOST_NODE:
        return Ending("node lost", ExitCode.NODE_LOST, f"the node of pod {name} was lost ({why})")
    return Ending("preempted", ExitCode.TERMINATED, f"pod {name} was evicted ({why})")


def news_of(name: str, job: Object, pods: Sequence[Object], warning: str = "") -> tuple[str, str]:
    """Return the state of a job in a word, and a sentence about it.

    Args:
        name: Of the job.
        job: The job.
        pods: Those of its pods that have not been replaced.
        warning: The newest warning among its events; "" without one.
    """
    if is_suspended(job) and not pods:
        return "Suspended", f"job {name}: it is suspended: it waits for its turn in a queue"
    if not pods:
        said = f": {warning}" if warning else ""
        return "NoPods", f"job {name}: Kubernetes has made no pod yet{said}"
    reasons = [(pod, why) for pod in pods if (why := waiting(pod)) is not None]
    if not reasons:
        return "Running", f"job {name}: {_count(len(pods), len(pods), 'started')}"
    first = min((why for _, why in reasons), key=lambda why: why.reason in _NO_REASON)
    waits = [pod for pod, why in reasons if why.reason == first.reason]
    told = first.message or (warning if first.reason in _NO_REASON else "")
    what = f"{first.reason}: {told}" if told else _PLAIN.get(first.reason, first.reason)
    who = _count(len(waits), len(pods), "waiting")
    return first.reason, f"job {name}: {who}: {what}"


_PLAIN = {
    "Scheduling": "the scheduler has not looked at it yet",
    "ContainerCreating": "its container is being made (image, volumes)",
    "PodInitializing": "its init containers run",
}


def _count(some: int, of: int, what: str) -> str:
    return f"its pod is {what}" if of == 1 else f"{some} of {of} pods are {what}"


def _meta(pod: Object) -> dict[str, Any]:
    return pod.get("metadata") or {}


def _labels(pod: Object) -> dict[str, str]:
    return _meta(pod).get("labels") or {}
