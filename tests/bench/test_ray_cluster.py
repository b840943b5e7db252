"""The head of a cluster, without a cluster: what becomes of calls whose node fails, and what is fetched from it."""

import errno
import os
import platform
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bench.cell import Settings
from bench.executors import ray_cluster
from bench.executors.interface import Call
from bench.executors.ray_cluster import RayCluster
from bench.executors.ray_node import RayNode
from bench.worker import WorkerPlan
from fusion.checksums import problems, write_checksums
from fusion.errors import DiskError, UserError
from fusion.prepared import Prepared

Start = Callable[..., RayCluster]


class RayError(Exception):
    pass


class RayTaskError(RayError):
    """As Ray raises it: an instance of the cause's class, too, with the traceback for a text."""

    @classmethod
    def of(cls, method: str, cause: Exception) -> "RayTaskError":
        error: RayTaskError = type("Dual", (cls, type(cause)), {"__init__": lambda *_: None})()
        error.cause, error.method = cause, method
        return error

    cause: Exception
    method: str

    def __str__(self) -> str:
        where = f"\x1b[36mray::RayNode.{self.method}()\x1b[39m (pid=31045, ip=192.0.2.2, actor_id=cb82d7351c80da530320)"
        kind = type(self.cause)
        return (
            f'{where}\n  File "ray_node.py", line 9, in {self.method}\n{kind.__module__}.{kind.__name__}: {self.cause}'
        )


@dataclass(eq=False)
class Reference:
    value: Any
    error: RayError | None = None


class Handle:
    """Makes every call of its node at once."""

    def __init__(self, plan: WorkerPlan) -> None:
        self.node, self.died = None, None
        try:
            self.node = RayNode(plan)
        except Exception as error:
            raised = f"raised in its creation task, {RayTaskError.of('__init__', error)}"
            self.died = RayError(f"The actor died because of an error {raised}")

    def __getattr__(self, method: str) -> Any:
        def remote(*arguments: Any) -> Reference:
            try:
                return Reference(None if self.died else getattr(self.node, method)(*arguments), self.died)
            except Exception as error:
                return Reference(None, RayTaskError.of(method, error))

        return SimpleNamespace(remote=remote)


class OneNode:
    """In the place of the library: a cluster with room for one cell."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 1.0}}]

    def method(self, **_: Any) -> Any:
        return lambda function: function

    def remote(self, **_: Any) -> Any:
        return lambda _: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=Handle))

    def wait(self, references: list[Reference], **_: Any) -> tuple[list[Reference], list[Reference]]:
        return references[:1], references[1:]

    def get(self, reference: Reference) -> Any:
        if reference.error:
            raise reference.error
        return reference.value

    def kill(self, _: Handle) -> None:
        pass

    def shutdown(self) -> None:
        pass


class Writer:
    """A worker that writes folders, or does not come to it at the first ``times`` tries."""

    def __init__(self, out: Path, tries: list[str]) -> None:
        self.out, self.tries = out, tries

    def write(self, folder: str, _: Any) -> Any:
        self.tries.append(folder)
        (self.out / folder).mkdir(parents=True)
        (self.out / folder / "file").write_text(f"of {folder}")
        write_checksums(self.out / folder)
        return SimpleNamespace(folders=[folder])

    def damage(self, folder: str, times: int, report: Any) -> Any:
        value = self.write(folder, report)
        if self.tries.count(folder) <= times:
            (self.out / folder / "file").write_text("else")
        return value

    def fill(self, folder: str, times: int, report: Any) -> Any:
        if self.tries.count(folder) < times:
            self.tries.append(folder)
            raise DiskError(f"can't write {self.out / folder}: No space left on device")
        return self.write(folder, report)


@dataclass(frozen=True, kw_only=True)
class Plan(WorkerPlan):
    tries: list[str]

    def worker(self) -> Any:
        return Writer(self.out, self.tries)


@pytest.fixture
def tries() -> list[str]:
    """The folders that workers began to write."""
    return []


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def plan(tiny_prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: list[str]) -> Plan:
    monkeypatch.setenv("FUSEBENCH_CACHE", str(tmp_path / "cache"))
    return Plan(
        data=tiny_prepared.root,
        data_hash=tiny_prepared.data_hash,
        out=tmp_path / "run",
        settings=Settings(weights="random", device="cpu"),
        threads=1,
        tries=tries,
    )


@pytest.fixture
def cluster(plan: Plan, told: list[str], monkeypatch: pytest.MonkeyPatch) -> RayCluster:
    monkeypatch.setattr(ray_cluster, "_connected", lambda _: (OneNode(), {}))
    return RayCluster(plan, "auto", None, lambda *_: None, told.append)


def call(method: str, *arguments: Any) -> Call:
    return Call(method=method, arguments=arguments, name=f"{method} {arguments[0]}")


# -- nodes that fail -------------------------------------------------------------------------------------------------


def test_why_no_worker_can_start_is_told(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: list[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FUSEBENCH_CACHE", str(tmp_path / "file"))
    cluster.submit([call("write", "cells/a")])
    with pytest.raises(UserError) as caught:
        cluster.next_result()
    lost = (
        f"a worker was lost (fusion.errors.DiskError: can't create the folder {tmp_path}/file/scratch: Not a directory)"
    )
    assert str(caught.value) == f"no worker can start on the cluster: {lost}, for the 3. time"
    assert told[1:] == [f"note: {lost}; it had nothing to do"] * 2


FULL = f"{platform.node()}: can't write cells/a: No space left on device"
DAMAGED = "cells/a/file was damaged on its way from a node: damaged"


@pytest.mark.parametrize(("method", "why"), [("fill", FULL), ("damage", DAMAGED)])
def test_what_one_node_can_not_write_is_computed_again(
    cluster: RayCluster, plan: Plan, told: list[str], method: str, why: str
) -> None:
    cluster.submit([call(method, "cells/a", 1), call("write", "cells/b")])
    assert [cluster.next_result().lost for _ in range(2)] == ["", ""]
    assert [(plan.out / "cells" / name / "file").read_text() for name in "ab"] == ["of cells/a", "of cells/b"]
    assert told[1:] == [f"note: a worker was lost ({why}); {method} cells/a is run again"]


@pytest.mark.parametrize(("method", "why"), [("fill", FULL), ("damage", DAMAGED)])
def test_what_no_node_can_write_is_given_up_and_the_others_go_on(
    cluster: RayCluster, plan: Plan, tries: list[str], method: str, why: str
) -> None:
    cluster.submit([call(method, "cells/a", 99), call("write", "cells/b")])
    assert cluster.next_result().lost == f"a worker was lost ({why}), for the 3. time"
    assert cluster.next_result().lost == ""
    assert tries.count("cells/a") == 3
    assert [path.name for path in (plan.out / "cells").iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (b"", "cells/a/SHA256SUMS was damaged on its way from a node: it ends after 0 bytes"),
        (OSError(errno.EIO, "Input/output error"), "builtins.OSError: [Errno 5] Input/output error"),
    ],
)
def test_files_that_can_not_be_read_on_a_node_are_computed_again(
    cluster: RayCluster, told: list[str], monkeypatch: pytest.MonkeyPatch, fault: bytes | OSError, why: str
) -> None:
    read, reads = RayNode.read, []

    def read_badly(node: RayNode, folder: str, name: str, offset: int) -> bytes:
        reads.append(node)
        assert len(reads) < 9, "it is read for ever"
        if node is not reads[0]:
            return read(node, folder, name, offset)
        if isinstance(fault, OSError):
            raise fault
        return fault

    monkeypatch.setattr(RayNode, "read", read_badly)
    cluster.submit([call("write", "cells/a")])
    assert cluster.next_result().lost == ""
    assert told[1:] == [f"note: a worker was lost ({why}); write cells/a is run again"]


def test_a_disk_that_is_full_here_ends_the_run(
    cluster: RayCluster, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = RayNode.read

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read_and_fill(*arguments: Any) -> bytes:
        monkeypatch.setattr(os, "fsync", refuse)
        return read(*arguments)

    monkeypatch.setattr(RayNode, "read", read_and_fill)
    cluster.submit([call("write", "cells/a")])
    with pytest.raises(DiskError, match=rf"^can't write {plan.out}/cells/.*: No space left on device$"):
        cluster.next_result()


# -- what is fetched -------------------------------------------------------------------------------------------------


def test_features_are_fetched_unless_they_are_here_and_intact(
    cluster: RayCluster, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = RayNode.read, []

    def counted(node: RayNode, folder: str, name: str, offset: int) -> bytes:
        reads.append(folder)
        return read(node, folder, name, offset)

    monkeypatch.setattr(RayNode, "read", counted)
    for name in ("damaged", "intact"):
        Writer(plan.out, []).write(f"features/{name}", None)
    (plan.out / "features" / "damaged" / "file").write_text("else")
    for name in ("damaged", "intact", "missing"):
        cluster.submit([call("write", f"features/{name}")])
        cluster.next_result()
        assert (plan.out / "features" / name / "file").read_text() == f"of features/{name}"
    assert set(reads) == {"features/damaged", "features/missing"}
    assert problems(plan.out) == []


def test_a_node_computes_on_while_its_files_are_fetched(
    cluster: RayCluster, tries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []
    read = RayNode.read

    def noted(*arguments: Any) -> bytes:
        begun.append(list(tries))
        return read(*arguments)

    monkeypatch.setattr(RayNode, "read", noted)
    for name in ("cells/a", "cells/b"):
        cluster.submit([call("write", name)])
    cluster.next_result()
    assert begun[0] == ["cells/a", "cells/b"]


# -- clusters that do not answer -------------------------------------------------------------------------------------


def test_an_address_of_ipv6_is_asked_without_its_brackets(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(place: tuple[str, int], **_: Any) -> None:
        asked.append(place)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(UserError, match=r"^no Ray cluster answers at \[::1\]:1 \(.*refused\); start one with"):
        RayCluster(plan, "[::1]:1", None, lambda *_: None, lambda _: None)
    assert asked == [("::1", 1)]


def test_a_cluster_that_can_not_be_started_here_says_why(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("the node\ntimed out")

    library = ModuleType("ray")
    library.init = refuse  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", library)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # or the import would have come too early
    with pytest.raises(UserError, match=r"^Ray can't start a cluster on this machine \(the node timed out\)$"):
        RayCluster(plan, "", None, lambda *_: None, lambda _: None)
