"""The process pool: what is computed where, what dies, what is told."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from pool_workers import Plan

from bench.executors import process_pool
from bench.executors.interface import Call, Result
from bench.executors.process_pool import END_S, ProcessPool, _Process
from fusion.errors import DiskError, UserError

Start = Callable[..., ProcessPool]


class Told:
    """What a pool has told."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, float]] = []
        self.lines: list[str] = []


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def start(told: Told) -> Iterator[Start]:
    pools: list[ProcessPool] = []

    def begin(count: int, **plan: Any) -> ProcessPool:
        pool = ProcessPool(
            Plan(**plan),  # type: ignore[arg-type]
            count,
            lambda call, part: told.parts.append((call.name, part)),
            told.lines.append,
        )
        pools.append(pool)
        return pool

    yield begin
    for pool in pools:
        pool.close()


def call(method: str, *arguments: Any) -> Call:
    return Call(method=method, arguments=arguments, name=f"{method} {arguments}")


def results(pool: ProcessPool, count: int) -> list[Result]:
    return [pool.next_result() for _ in range(count)]


def test_every_call_is_made_once_and_by_warm_processes(start: Start, told: Told) -> None:
    pool, calls = start(2), [call("add", number, 1) for number in range(20)]
    for one in calls:
        pool.submit([one])
    ended = {result.call: result.value for result in results(pool, 20)}
    assert [ended[one][0] for one in calls] == list(range(1, 21))
    assert len({pid for _, pid in ended.values()} - {os.getpid()}) == 2
    assert sorted(told.parts) == sorted((one.name, 0.5) for one in calls)
    assert told.lines == []


def test_calls_that_share_go_to_one_process_in_their_order(start: Start) -> None:
    pool, groups = start(3), [[call("add", group, number) for number in range(4)] for group in range(3)]
    for group in groups:
        pool.submit(group)
    ended = results(pool, 12)
    for group in groups:
        mine = [result for result in ended if result.call in group]
        assert [result.call for result in mine] == group
        assert len({result.value[1] for result in mine}) == 1


def test_no_more_processes_are_started_than_there_is_work_for(start: Start) -> None:
    pool = start(8)
    pool.submit([call("add", 1, 2), call("add", 3, 4)])
    results(pool, 2)
    assert len(pool.workers) == 1


def test_the_calls_of_a_process_that_dies_are_made_by_another(start: Start, told: Told, tmp_path: Path) -> None:
    pool = start(2)
    pool.submit([call("add", 1, 2), call("die", tmp_path / "tries", 2), call("add", 3, 4)])
    pool.submit([call("add", 5, 6)])
    values = {result.call.name: result.value for result in results(pool, 4)}
    assert values[f"die {(tmp_path / 'tries', 2)}"] == 3
    assert sorted(value[0] for name, value in values.items() if name.startswith("add")) == [3, 7, 11]
    assert len(told.lines) == 2
    assert all("died (SIGKILL, perhaps for want of memory); die " in line for line in told.lines)
    assert all(line.endswith("is run again") for line in told.lines)


def test_a_call_that_kills_every_process_is_given_up_and_the_others_go_on(start: Start, tmp_path: Path) -> None:
    pool = start(1)
    pool.submit([call("die", tmp_path / "tries", 99), call("add", 3, 4)])
    lost, added = results(pool, 2)
    assert lost.call.method == "die"
    assert "SIGKILL" in lost.lost
    assert lost.lost.endswith("for the 3. time")
    assert added.value[0] == 7
    assert (tmp_path / "tries").read_text() == "..."


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [(DiskError("the disk is full"), DiskError, "^the disk is full$"), (KeyError("mine"), RuntimeError, "KeyError")],
)
def test_an_error_of_a_call_is_raised_here(start: Start, error: Exception, raised: type, said: str) -> None:
    pool = start(2)
    pool.submit([call("fail", error)])
    with pytest.raises(raised, match=said):
        pool.next_result()


def test_a_worker_that_can_not_begin_says_why(start: Start) -> None:
    pool = start(2, refusal="the data were changed")
    pool.submit([call("add", 1, 2)])
    with pytest.raises(UserError, match=r"^the data were changed$"):
        pool.next_result()


class Stubborn:
    """A process that ends when it is killed, not before; waiting for it lets the clock go on."""

    def __init__(self, clock: list[float]) -> None:
        self.clock, self.killed = clock, False

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        self.killed = True

    def join(self, timeout: float = 0.0) -> None:
        self.clock[0] += 0.0 if self.killed else timeout


def add_stubborn(pool: ProcessPool, clock: list[float]) -> Any:
    """Add a process to the pool, and return the other end of its connection."""
    here, there = multiprocessing.Pipe()
    process: Any = Stubborn(clock)
    pool.workers.append(_Process(place=len(pool.workers), process=process, connection=here, calls=deque()))
    return there


def test_close_waits_for_all_processes_together(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, clock = start(3), [1000.0]
    monkeypatch.setattr(process_pool, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    for _ in range(3):
        add_stubborn(pool, clock)
        pool.workers[-1].calls.append(call("linger"))
    processes: list[Any] = [worker.process for worker in pool.workers]
    pool.close()
    assert clock == [1000.0 + END_S]
    assert all(process.killed for process in processes)


def test_a_process_has_its_next_call_before_the_result_is_looked_at(start: Start) -> None:
    pool = start(1)
    there = add_stubborn(pool, [0.0])
    for number in (1, 2):
        pool.submit([call("add", number)])
        there.send(("value", number))
    assert pool.next_result().value == 1
    assert [there.recv().name for _ in range(2) if there.poll()] == ["add (1,)", "add (2,)"]


def test_close_lets_the_calls_under_way_leave_cleanly(start: Start, told: Told, tmp_path: Path) -> None:
    pool = start(2)
    pool.submit([call("linger", tmp_path / "left")])
    deadline = time.monotonic() + 60
    while 0.25 not in [part for _, part in told.parts] and time.monotonic() < deadline:
        pool.submit([call("add", 1, 2)])  # it ends at once, and lets the pool listen to the other
        pool.next_result()
    children = [worker.process.pid for worker in pool.workers]
    pool.close()
    assert int((tmp_path / "left").read_text()) in children
    assert not any(psutil.pid_exists(pid) for pid in children if pid)


ORPHANED = """
import sys
from pathlib import Path
from pool_workers import Plan
from bench.executors.interface import Call
from bench.executors.process_pool import ProcessPool
if __name__ == "__main__":
    pool = ProcessPool(Plan(), 1, lambda call, part: print(pool.workers[0].process.pid, flush=True), print)
    pool.submit([Call(method="linger", arguments=(Path(sys.argv[1]),))])
    pool.next_result()
"""


def test_workers_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "orphaned.py").write_text(ORPHANED)
    paths = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[2])))
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "orphaned.py"), str(tmp_path / "left")],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        worker = psutil.Process(int(run.stdout.readline()))
        run.send_signal(signal.SIGKILL)
        worker.wait(timeout=30)
    assert not (tmp_path / "left").exists()


@pytest.mark.parametrize(
    ("count", "named", "cards"),
    [(0, "", {None}), (2, "", {"0", "1"}), (2, "GPU-a,GPU-b", {"GPU-a", "GPU-b"}), (1, "3", {"3"})],
)
def test_cards_are_divided_between_the_processes(
    start: Start, monkeypatch: pytest.MonkeyPatch, count: int, named: str, cards: set[str | None]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    else:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pool = start(4)
    for _ in range(4):
        pool.submit([call("card")])
    deadline = time.monotonic() + 60
    seen = set()
    while seen != cards and time.monotonic() < deadline:
        seen.add(pool.next_result().value)
        pool.submit([call("card")])
    assert seen == cards
