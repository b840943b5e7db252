"""Would this machine do what it claims? Each check looks for a fault that would otherwise change results in silence.

The checks judge here what probes in child processes tell (``bench.doctor_probes``).
"""

import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from bench.doctor_probes import CHILDREN, CPU, CUDA, GIB, TENSORRT, Facts, run_child
from fusion.text import one_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

SPACE_GIB = 19
"""What ``run paper`` writes. The networks in MiB: cnn17 679, those of Model 2 163 + 90 + 83 + 15 + 9 = 360. A protocol
has 9 cells of cnn17 (4 of Model 3, 3 of the ablation, 2 of the transfer), the 360 three times in Model 2 and once in
Model 1, and 400 of Model 1's features and heads: 7951. Two protocols, and ONNX files of one cell of each network (fp32,
fp16 and int8 are 1.75 times its size): 17700 MiB; and 850 in between, while cnn17 is quantized."""
MEMORY_GIB = 4
"""To train cnn17: 0.66 GiB each of weights, gradients, momentum and the best weights so far, and the images."""
SHARED_GIB = 1
"""For the batches of the loader torchvision's workers."""
GPU_PLATFORM = sys.platform == "linux" and platform.machine() == "x86_64"
"""Where pyproject.toml asks for DALI, Triton and onnxruntime-gpu."""

REINSTALL_TORCH = "pip install --upgrade --force-reinstall torch torchvision (both from the same index)"
REINSTALL_DALI = "pip install --force-reinstall nvidia-dali-cuda130"
ONNXRUNTIME = "'onnxruntime-gpu[cuda,cudnn]'" if GPU_PLATFORM else "onnxruntime"
REINSTALL_ONNXRUNTIME = f"pip install --force-reinstall {ONNXRUNTIME}"
MEND_GPU = "mend what is said of torch above; or install the build of pytorch.org/get-started for this GPU and driver"
MEND_TF32 = "unset NVIDIA_TF32_OVERRIDE and TORCH_ALLOW_TF32_CUBLAS_OVERRIDE; if neither is set, report it"
MEND_NVML = "pip install nvidia-ml-py; a container also needs utility among its NVIDIA_DRIVER_CAPABILITIES"
MEND_TRITON = "pip install --force-reinstall triton; on a GPU it also needs a C compiler (CC, gcc) and Python.h"
MEND_FIRST = "mend what is said of torch and torchvision above"
REPORT = "a mistake of fusebench, or of a broken installation: report it with this line"
OTHER_FOLDER = "choose another folder by --out"

Status = Literal["ok", "fault", "absent"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How one check went."""

    check: str
    status: Status
    """``absent``: this machine has no such thing, and nothing claims that it has."""
    found: str
    remedy: str
    """What to do about a fault; else empty."""

    def __str__(self) -> str:
        mark = "FAULT" if self.status == "fault" else self.status
        line = f"{mark:<6}  {self.check:<{max(map(len, CHECKS))}}  {self.found}"
        return f"{line}\n{'':6}  -> {self.remedy}" if self.remedy else line


class Answer(NamedTuple):
    """What a check returns."""

    status: Status
    found: str
    remedy: str = ""


class ProbeError(Exception):
    """A probe failed, crashed or hung; the message says how."""


class Machine:
    """What is to be examined; each child is started once, when the first of its probes is asked for."""

    def __init__(self, out: Path, weights: str) -> None:
        self.weights = weights
        self.arguments = {"weights": [weights], "disk": [str(out)]}
        self.answers: dict[str, Facts] = {}

    def ask(self, probe: str) -> Facts:
        """Return the facts a probe has told.

        Raises:
            ProbeError: it has told none.
        """
        if probe not in self.answers:
            group = next(group for group in CHILDREN if probe in group)
            told, ended = run_child({name: self.arguments.get(name, []) for name in group})
            self.answers |= {name: told.get(name, {"failed": ended}) for name in group}
        if "failed" in self.answers[probe]:
            raise ProbeError(self.answers[probe]["failed"])
        return self.answers[probe]


def examine(out: Path, weights: str, told: Callable[[Finding], None] = lambda _: None) -> list[Finding]:
    """Make every check of ``CHECKS``; one that fails itself is a fault, never an end.

    Args:
        out: folder of the results; it need not exist.
        weights: ``imagenet``, ``random`` or a folder of safetensors files.
        told: called with each finding when it is known.
    """
    machine, findings = Machine(out, weights), []
    for name, (check, remedy) in CHECKS.items():
        try:
            answer = check(machine)
        except Exception as error:  # whatever it is, the other checks are wanted
            kind = "" if isinstance(error, ProbeError) else f"the check itself failed: {type(error).__name__}: "
            answer = Answer("fault", f"{kind}{error}", remedy)
        found = Finding(check=name, status=answer.status, found=one_line(answer.found), remedy=answer.remedy)
        findings.append(found)
        told(found)
    return findings


# -- the checks ------------------------------------------------------------------------------------------------------


def _packages(_: Machine) -> Answer:
    names, lacking, install = set(), [], []
    for requirement in _requirements("fusebench"):
        names.add(requirement.name)
        try:
            here = version(requirement.name)
        except PackageNotFoundError:
            here = "missing"
        if here == "missing" or not requirement.specifier.contains(here, prereleases=True):
            extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
            lacking.append(f"{requirement.name} {here}")
            install.append(f"'{requirement.name}{extras}{requirement.specifier}'")
    if lacking:
        return Answer("fault", ", ".join(lacking), f"pip install --upgrade {' '.join(install)}")
    return Answer("ok", f"{len(names)}, in versions fusebench takes, under {sys.executable}")


def _requirements(package: str, extras: Iterable[str] = ()) -> "Iterator[Requirement]":
    """Yield what ``package`` requires here, and what the extras that it asks of others require."""
    from packaging.requirements import Requirement  # here, as the doctor is to say so where it is missing

    for requirement in map(Requirement, requires(package) or ()):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": one}) for one in ("", *extras)):
            yield requirement
            if requirement.extras:
                with suppress(PackageNotFoundError):  # said of the requirement itself
                    yield from _requirements(requirement.name, requirement.extras)


def _torch(machine: Machine) -> Answer:
    facts = machine.ask("torch")
    return Answer("ok", f"{facts['version']}, {_built_for(facts['cuda'])}")


def _torchvision(machine: Machine) -> Answer:
    facts, torch = machine.ask("torchvision"), version("torch")
    for requirement in _requirements("torchvision"):
        if requirement.name == "torch" and not requirement.specifier.contains(torch, prereleases=True):
            pair = f"{facts['version']} needs torch {requirement.specifier}, and torch is {torch}"
            return Answer("fault", pair, REINSTALL_TORCH)
    if facts["cuda"] != facts["torch_cuda"]:
        pair = f"{facts['version']} is {_built_for(facts['cuda'])}, torch is {_built_for(facts['torch_cuda'])}"
        return Answer("fault", pair, REINSTALL_TORCH)
    if not facts["right"]:
        return Answer("fault", f"{facts['version']} computes a wrong result (nms)", REINSTALL_TORCH)
    return Answer("ok", f"{facts['version']}, {_built_for(facts['cuda'])} like torch; its operators run")


def _built_for(cuda: str | None) -> str:
    return f"built for CUDA {cuda}" if cuda else "built for the CPU only"


def _gpu(machine: Machine) -> Answer:
    facts = machine.ask("gpu")
    if facts["wrong"]:
        return Answer("fault", f"{', '.join(facts['wrong'])} computes a wrong result", MEND_GPU)
    if facts["gpus"]:
        return Answer("ok", f"{', '.join(facts['gpus'])}; a matmul ran on each")
    if not facts["signs"]:
        return Answer("absent", "no NVIDIA driver; everything runs on the CPU")
    found = f"{' and '.join(facts['signs'])} found, but torch sees no GPU: {facts['error'] or 'it counts none'}"
    if not facts["cuda"]:
        return Answer("fault", found, "install a torch built for CUDA: " + REINSTALL_TORCH)
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        hidden = f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']!r} hides GPUs: unset it"
        return Answer("fault", found, hidden)
    return Answer("fault", found, f"install an NVIDIA driver for CUDA {facts['cuda']}; in a container, pass --gpus all")


def _tf32(machine: Machine) -> Answer:
    facts, override = machine.ask("tf32"), os.environ.get("NVIDIA_TF32_OVERRIDE", "0")
    forced = [] if override == "0" else [f"all the GPU's libraries (NVIDIA_TF32_OVERRIDE={override})"]
    if used := forced + facts["used"]:
        return Answer("fault", f"used where fp32 is said: {', '.join(used)}", MEND_TF32)
    measured = "the GPU computes all bits of fp32" if facts["measured"] else "torch is told so; no GPU to measure it on"
    return Answer("ok", f"off for matmul and convolution: {measured}")


def _nvml(machine: Machine) -> Answer:
    facts = machine.ask("nvml")
    if facts["mhz"] is None:
        return Answer("absent", "no GPU whose clock and energy could be recorded")
    energy = "counts its energy" if facts["energy"] else "does not count its energy, so none is recorded"
    return Answer("ok", f"tells the GPU's clock ({facts['mhz']} MHz), and that it {energy}")


def _triton(machine: Machine) -> Answer:
    if not GPU_PLATFORM and find_spec("triton") is None:
        return Answer("absent", "not made for this platform; plain PyTorch augments")
    facts = machine.ask("triton")
    ready = f"ready to compile for {facts['target']}" if facts["target"] else "imports; no GPU to compile for"
    return Answer("ok", f"{facts['version']}, {ready}")


def _dali(machine: Machine) -> Answer:
    if not GPU_PLATFORM:
        return Answer("absent", "made for Linux on x86-64 only; torchvision decodes")
    facts = machine.ask("dali")
    if facts["wrong"]:
        found = f"{facts['version']} decodes a PNG wrongly on the {' and the '.join(facts['wrong'])}"
        return Answer("fault", found, REINSTALL_DALI)
    return Answer("ok", f"{facts['version']}, decoded a PNG on the {' and the '.join(facts['devices'])}")


def _onnxruntime_packages(_: Machine) -> Answer:
    owners = sorted(set(packages_distributions().get("onnxruntime", ())))
    if len(owners) > 1:
        found = f"{' and '.join(owners)} are both installed: each overwrites the other's files"
        return Answer("fault", found, f"pip uninstall --yes {' '.join(owners)}; pip install {ONNXRUNTIME}")
    return Answer("ok", f"{owners[0]} {version(owners[0])}, the only package of this module")


def _onnxruntime_cpu(machine: Machine) -> Answer:
    return _computed(machine.ask(CPU))


def _onnxruntime_cuda(machine: Machine) -> Answer:
    if not GPU_PLATFORM:
        return Answer("absent", "the package of this platform has no CUDA provider")
    facts = machine.ask(CUDA)
    if not facts["offered"]:
        return Answer("fault", f"{facts['version']} is the package without CUDA", f"pip install {ONNXRUNTIME}")
    if "libcuda.so.1" in facts["missing"]:
        return Answer("absent", "no NVIDIA driver (libcuda.so.1); all other libraries of the provider are there")
    if facts["missing"]:
        found = f"{facts['missing']}: sessions would run on the CPU and say nothing"
        return Answer("fault", found, f"pip install {ONNXRUNTIME}")
    if facts["opened"] != CUDA:
        found = f"asked for {CUDA}, a session opened {facts['opened']} and said nothing, though all libraries load"
        return Answer("fault", found, "mend what GPU says above, or install a newer NVIDIA driver")
    return _computed(facts)


def _onnxruntime_tensorrt(machine: Machine) -> Answer:
    facts = machine.ask(TENSORRT) if GPU_PLATFORM else {"offered": False}
    if facts["offered"] and facts["opened"] == TENSORRT:
        return _computed(facts)
    return Answer("absent", f"{facts.get('missing') or 'no TensorRT'}; nothing here needs it")


def _computed(facts: Facts) -> Answer:
    if facts["right"]:
        return Answer("ok", f"{facts['version']}, a session opened with it and computed a convolution")
    return Answer("fault", f"{facts['version']} computes a wrong convolution", REINSTALL_ONNXRUNTIME)


def _cores(machine: Machine) -> Answer:
    """Judge how many threads there will be.

    A quota below the cores is a fault: torch, DALI and the workers start a thread for each core, the kernel stops them
    all when the quota is used up, and latencies show it without a word. OMP_NUM_THREADS is none: it is somebody's wish,
    and every result records it with torch's threads.
    """
    facts = machine.ask("cores")
    cores, quota = facts["cores"], facts["quota"]
    if quota is not None and quota < len(cores):
        found = f"{len(cores)} cores, but a quota (cgroup) of the time of {quota:g}: threads are stopped in between"
        few = ",".join(map(str, cores[: max(1, int(quota))]))
        return Answer("fault", found, f"taskset --cpu-list {few} fusebench ..., or docker run --cpuset-cpus {few}")
    threads = os.environ.get("OMP_NUM_THREADS")
    wish = f"; OMP_NUM_THREADS={threads} is what torch takes" if threads else ""
    return Answer("ok", f"{len(cores)} for this process, and no quota below that{wish}")


def _memory(machine: Machine) -> Answer:
    remedy = "end other programs or raise the container's limit, or the system may kill a run without a word"
    return _room(machine.ask("memory")["free"], MEMORY_GIB, "free; training cnn17 takes", remedy)


def _shared_memory(machine: Machine) -> Answer:
    facts = machine.ask("shared memory")
    if facts["free"] is None:
        return Answer("absent", f"no {facts['folder']} on this system")
    remedy = "docker run --shm-size=2g (or --ipc=host), or take another loader than torchvision"
    return _room(facts["free"], SHARED_GIB, f"free in {facts['folder']}; workers need", remedy)


def _room(free: int, needed: int, what: str, remedy: str) -> Answer:
    found = f"{free / GIB:.1f} GiB {what} {needed}"
    return Answer("ok", found) if free >= needed * GIB else Answer("fault", found, remedy)


def _weights(machine: Machine) -> Answer:
    if machine.weights == "random":
        return Answer("ok", "random, as asked for: no files needed")
    facts = machine.ask("weights")
    if facts["damaged"]:
        remedy = "download them again: each is the file model.safetensors of its hub repository"
        return Answer("fault", f"not safetensors, or cut short: {', '.join(facts['damaged'])}", remedy)
    if not facts["missing"]:
        return Answer("ok", f"of all {facts['count']} networks in {facts['where']}")
    found = f"not in {facts['where']}: {', '.join(facts['missing'])}"
    if machine.weights != "imagenet":
        remedy = "save model.safetensors of the hub repositories timm/NAME there, each as NAME.safetensors"
        return Answer("fault", found, f"{remedy}; or choose --weights imagenet or random")
    remedy = (
        "with network, 'fusebench run' downloads them; without, download model.safetensors of the hub repositories "
        "timm/NAME elsewhere, save each as NAME.safetensors in one folder, and pass --weights FOLDER; or choose "
        "--weights random by name"
    )
    return Answer("fault", found, remedy)


def _disk(machine: Machine) -> Answer:
    facts = machine.ask("disk")
    if facts["error"]:
        return Answer("fault", f"can't write to {facts['nearest']}: {facts['error']}", OTHER_FOLDER)
    what = f"free in {facts['nearest']}; 'run paper' writes"
    return _room(facts["free"], SPACE_GIB, what, f"free some, or {OTHER_FOLDER}")


CHECKS: dict[str, tuple[Callable[[Machine], Answer], str]] = {
    "packages": (_packages, "install fusebench itself: pip install --editable ."),
    "torch": (_torch, REINSTALL_TORCH),
    "torchvision": (_torchvision, REINSTALL_TORCH),
    "GPU": (_gpu, MEND_GPU),
    "TF32": (_tf32, MEND_FIRST),
    "NVML": (_nvml, MEND_NVML),
    "Triton": (_triton, MEND_TRITON),
    "DALI": (_dali, REINSTALL_DALI),
    "onnxruntime packages": (_onnxruntime_packages, REPORT),
    "onnxruntime CPU": (_onnxruntime_cpu, REINSTALL_ONNXRUNTIME),
    "onnxruntime CUDA": (_onnxruntime_cuda, REINSTALL_ONNXRUNTIME),
    "onnxruntime TensorRT": (_onnxruntime_tensorrt, REINSTALL_ONNXRUNTIME),
    "cores": (_cores, REPORT),
    "memory": (_memory, REPORT),
    "shared memory": (_shared_memory, REPORT),
    "weights": (_weights, MEND_FIRST),
    "disk": (_disk, OTHER_FOLDER),
}
"""Name -> the check, and what to do where it fails itself: its probe raises, crashes or hangs."""
