"""Cells on the nodes of a Ray cluster: long-lived actors, the data set sent where it lacks, results fetched at once.

The nodes need fusebench and its packages, but no file system in common with the run.
"""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.executors.interface import MOST_LOSSES, Call, Report, Result, Tell, Work
from bench.executors.ray_node import CHUNK, RayNode
from bench.worker import WorkerPlan
from fusion.checksums import SUMS, problems
from fusion.errors import DiskError, UserError
from fusion.files import replacing_folder
from fusion.prepared import FILES
from fusion.text import one_line

POLL_S = 0.5
"""How often the progress is asked for."""
PATIENCE_S = 60
"""How long the cluster may let wait before that is told."""
BESIDE = ("part", "read", "forget", "clear")
"""Methods of an actor that are called while another call is under way."""


class RayCluster:
    """As many actors as the nodes have room for, each with ``threads`` CPUs and a share of a GPU.

    Args:
        plan: what a worker needs.
        address: of the cluster, ``auto`` for the one this machine belongs to; empty starts one on this machine alone.
        gpus_per_cell: share of a GPU that a cell takes; None for a whole one where the cluster has any.
        report: told how far calls are.
        tell: told what the user should know.

    Raises:
        UserError: Ray is not installed, there is no cluster at the address, or no node has room for a cell.
    """

    def __init__(self, plan: WorkerPlan, address: str, gpus_per_cell: float | None, report: Report, tell: Tell) -> None:
        self.plan, self.report, self.tell, self.work = plan, report, tell, Work(tell)
        self.ray, self.token = _connected(address)
        has_gpu = any(node["Resources"].get("GPU", 0) for node in self._nodes())
        self.gpus = float(has_gpu) if gpus_per_cell is None else gpus_per_cell
        self.actors: list[_Actor] = []
        self.failed_starts, self.sent, self.waited_s = 0, 0, 0.0
        rooms = [room for room in self._rooms() if room]
        if not rooms:
            self._leave()
            raise UserError(
                f"no node of the cluster has the {plan.threads} CPUs and {self.gpus:g} GPUs that a cell takes; "
                "choose fewer --threads or a smaller --gpus-per-cell"
            )
        tell(f"note: the cluster has room for {sum(rooms)} cells at once (nodes: {len(rooms)})")

    def submit(self, calls: Sequence[Call]) -> None:
        """Hand over calls that one actor makes, one after the other."""
        self.work.submit(calls)

    def next_result(self) -> Result:
        """Wait until a call has ended, fetch what it wrote, and return how it ended."""
        while True:
            self._hand_out()
            if self.work.given_up:
                return self.work.given_up.popleft()
            under_way = {actor.reference: actor for actor in self.actors if actor.reference is not None}
            done, _ = self.ray.wait(list(under_way), timeout=POLL_S)
            if not done:
                self._poll()
                continue
            actor = under_way[done[0]]
            try:
                if not actor.ready:
                    self._open(actor)
                    continue
                value, written = self._end_of(actor)
            except (self.ray.exceptions.RayError, _NodeError) as error:
                self._lose(actor, error, actor.calls)
                continue
            call = actor.calls.popleft()
            self._hand_out()  # it computes on while its files are fetched
            try:
                for folder, sizes in written.items():
                    self._fetch(actor, folder, sizes)
            except _NodeError as error:
                self._lose(actor, error, deque([call, *actor.calls]))
                continue
            return Result(call=call, value=value)

    def close(self) -> None:
        """End the actors, remove what they wrote, and leave the cluster."""
        if cleared := [actor.handle.clear.remote() for actor in self.actors]:
            self.ray.wait(cleared, num_returns=len(cleared), timeout=5)
        for actor in self.actors:
            self.ray.kill(actor.handle)
        self.actors.clear()
        self.work.waiting.clear()
        self._leave()

    def _leave(self) -> None:
        self.ray.shutdown()
        _forget(self.token)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _rooms(self) -> list[int]:
        """Return how many cells each node has room for."""
        return [_room_of(node["Resources"], self.plan.threads, self.gpus) for node in self._nodes()]

    def _hand_out(self) -> None:
        """Give calls to actors that have none; start actors while there is work and room for them."""
        for actor in self.actors:
            if actor.ready and not actor.calls and self.work.waiting:
                actor.calls = self.work.waiting.popleft()
            actor.ask()
        starting = sum(not actor.ready for actor in self.actors)
        if len(self.work.waiting) > starting:
            for _ in range(min(len(self.work.waiting) - starting, sum(self._rooms()) - len(self.actors))):
                self.actors.append(self._started())
        if not self.actors and self.work.waiting:
            raise UserError("no node of the cluster is left that has room for a cell; call the same command again")

    def _started(self) -> "_Actor":
        remote = self.ray.remote(concurrency_groups={"beside": 1})(_with_groups(self.ray))
        handle = remote.options(num_cpus=self.plan.threads, num_gpus=self.gpus).remote(self.plan)
        return _Actor(handle=handle, reference=handle.open.remote(), sent_before=self.sent)

    def _open(self, actor: "_Actor") -> None:
        """Let an actor begin, or give its node the data set that it lacks, once, and ask again."""
        if self._end_of(actor):
            actor.ready = True
            return
        if actor.sent_before < self.sent:  # meanwhile another worker, perhaps of the same node, was given it
            actor.sent_before = self.sent
            actor.reference = actor.handle.open.remote()
            return
        self.tell(f"note: {self.plan.data} is sent to a node that lacks it")
        for name in (name for name in (*FILES, SUMS) if (self.plan.data / name).exists()):
            with (self.plan.data / name).open("rb") as file:
                while content := file.read(CHUNK):
                    self.ray.get(actor.handle.receive.remote(name, content))
        self.ray.get(actor.handle.keep.remote())
        self.sent += 1
        actor.sent_before = self.sent
        actor.reference = actor.handle.open.remote()

    def _end_of(self, actor: "_Actor") -> Any:
        """Return what the actor's call returned; an error of the call itself is raised as it was.

        Raises:
            _NodeError: the node can't write.
        """
        reference, actor.reference = actor.reference, None
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, DiskError):
                raise _NodeError(str(error.cause)) from None
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            raise RuntimeError(str(error)) from None

    def _fetch(self, actor: "_Actor", folder: str, sizes: dict[str, int]) -> None:
        """Bring a folder that an actor wrote into the run's folder.

        Raises:
            DiskError: it can't be written here.
            _NodeError: it can't be read there, or arrives damaged.
        """
        place = self.plan.out / folder
        # features are named by the hash of all that decides them
        if folder.startswith("features/") and place.exists() and not problems(place):
            return
        with replacing_folder(place) as partial:
            for name, size in sizes.items():
                with (partial / Path(name).name).open("wb") as file:
                    while file.tell() < size:
                        file.write(self._read(actor, folder, name, file.tell()))
            for problem in problems(partial):
                raise _NodeError(f"{folder}/{problem.path.name} was damaged on its way from a node: {problem.kind}")
        actor.handle.forget.remote(folder)

    def _read(self, actor: "_Actor", folder: str, name: str, offset: int) -> bytes:
        """Return the next chunk of a file that an actor wrote; there must be one."""
        try:
            content: bytes = self.ray.get(actor.handle.read.remote(folder, name, offset))
        except self.ray.exceptions.RayError as error:  # may be an OSError, too, and would be taken for one of this disk
            raise _NodeError(_last_line(error)) from None
        if not content:
            raise _NodeError(f"{folder}/{name} was damaged on its way from a node: it ends after {offset} bytes")
        return content

    def _poll(self) -> None:
        """Ask how far the calls under way are, and tell when the cluster lets wait."""
        working = [actor for actor in self.actors if actor.ready and actor.calls]
        parts = [actor.handle.part.remote() for actor in working]
        there = set(self.ray.wait(parts, num_returns=len(parts), timeout=POLL_S)[0]) if parts else set()
        for actor, part in zip(working, parts, strict=True):
            if part in there:
                with suppress(self.ray.exceptions.RayError):  # a lost actor is noticed by its call
                    self.report(actor.calls[0], self.ray.get(part))
        if not any(actor.ready for actor in self.actors):
            self.waited_s += POLL_S
            if self.waited_s == PATIENCE_S:
                self.tell(f"note: no worker has started in {PATIENCE_S} s: the cluster may be busy, or a node slow")

    def _lose(self, actor: "_Actor", error: Exception, calls: deque[Call]) -> None:
        """Take the calls of an actor back that is gone, perhaps with its node."""
        self.actors.remove(actor)
        self.ray.kill(actor.handle)
        how = f"a worker was lost ({_last_line(error)})"
        self.failed_starts = 0 if actor.ready else self.failed_starts + 1
        if self.failed_starts == MOST_LOSSES:
            raise UserError(f"no worker can start on the cluster: {how}, for the {MOST_LOSSES}. time")
        self.work.take_back(calls, how)


class _NodeError(UserError):
    """A node can't write, or what it wrote did not arrive; another node may do better."""


@dataclass(kw_only=True, eq=False)
class _Actor:
    """A worker on a node, and what it has to do."""

    handle: Any
    reference: Any
    """Of the call under way; at first that of ``open``."""
    sent_before: int
    """How often the data set had been sent to a node when this one last looked for it."""
    ready: bool = False
    calls: deque[Call] = field(default_factory=deque)
    """The first is under way."""

    def ask(self) -> None:
        """Ask for the first call, unless one is under way."""
        if self.ready and self.calls and self.reference is None:
            self.reference = self.handle.call.remote(self.calls[0])


def _room_of(resources: dict[str, float], cpus: int, gpus: float) -> int:
    """Return how many cells a node has room for."""
    room = int(resources.get("CPU", 0) // cpus)
    if gpus:
        there = resources.get("GPU", 0)
        # Ray gives a cell a share of one card, or whole cards, never parts of two
        room = min(room, int(there // gpus) if gpus >= 1 else int(there) * int(1 / gpus + 1e-9))
    return room


def _with_groups(ray: Any) -> type[RayNode]:
    """Return the class of the actors; what is asked beside a call is answered by a thread of its own."""
    beside = {name: ray.method(concurrency_group="beside")(getattr(RayNode, name)) for name in BESIDE}
    return type("RayNode", (RayNode,), beside)


def _connected(address: str) -> tuple[Any, dict[str, str]]:
    """Connect to the cluster, or start one that a token alone lets in, and return the library and the token."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of the cluster
    os.environ.setdefault("RAY_worker_niceness", "0")  # where one is started here: the cells are what it is for
    _require_listener(address)
    token: dict[str, str] = {}
    if not address and "RAY_AUTH_MODE" not in os.environ:  # its ports are open to the network
        if "ray" in sys.modules:
            raise UserError(
                "this process has imported Ray already, too late for the token of a cluster that is started here; "
                "start one with 'ray start --head' and name its --address"
            )
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ |= token  # before Ray is imported, which reads them then
    try:
        import ray
    except ImportError:
        _forget(token)
        raise UserError("--engine ray needs Ray: pip install 'fusebench[cluster]'") from None
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except Exception as error:  # it raises many kinds, Exception itself among them
        _forget(token)
        raise _no_answer(address, error) from None
    if main:
        signal.signal(signal.SIGTERM, handler)  # Ray sets one of its own, and an interruption is ours to handle
    return ray, token


def _forget(token: Iterable[str]) -> None:
    for name in token:
        os.environ.pop(name, None)


def _require_listener(address: str) -> None:
    """Refuse an address at which nobody listens, in seconds; Ray itself tries for minutes."""
    host, separator, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")  # of IPv6
    if not separator or not port.isdigit() or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_answer(address, error) from None


def _no_answer(address: str, error: Exception) -> UserError:
    why = one_line(str(error), 200)
    if not address:
        return UserError(f"Ray can't start a cluster on this machine ({why})")
    return UserError(
        f"no Ray cluster answers at {address} ({why}); start one with 'ray start --head', or leave --address out"
    )


def _last_line(error: Exception) -> str:
    """Return the last line of an error's text: below the traceback of another process Python puts the cause."""
    lines = [line for line in map(one_line, str(error).splitlines()) if line]
    return one_line(lines[-1], 300) if lines else type(error).__name__
