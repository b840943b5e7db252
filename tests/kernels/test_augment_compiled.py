"""What the compiler makes of the fused kernel for an H100; it needs no GPU."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kernels.augment as fused

COMPILE = """
import sys
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.augment import PIXELS, WARPS, _augment_kernel

options = {"num_warps": WARPS, "enable_fp_fusion": True}
names = _augment_kernel.arg_names
pointers = {name: "*i64" for name in names if name.endswith("_ptr")} | {"images_ptr": "*u8", "out_ptr": "*bf16"}
aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in pointers}
for channels in (1, 3):
    constants = dict(HEIGHT=300, WIDTH=300, FLIP_X=True, FLIP_Y=True, NOISE=True, CHANNELS=channels)
    constants |= dict(CHANNEL_LANES=triton.next_power_of_2(channels), PIXELS=PIXELS)
    kinds = dict.fromkeys(names, "fp32") | dict.fromkeys(constants, "constexpr") | pointers | {"seed": "i64"}
    places = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(_augment_kernel, kinds, places, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert compiled.asm["cubin"]
    for kind in ("ptx", "ttgir"):
        Path(sys.argv[1], f"{channels}.{kind}").write_text(compiled.asm[kind])
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The kernel of one and of three bfloat16 channels, compiled for an H100, in Triton's terms and in PTX."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("Triton brings its CUDA assembler for Linux on x86-64 alone")
    folder = tmp_path_factory.mktemp("compiled")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run(
        [sys.executable, "-c", COMPILE, str(folder)],
        cwd=Path(fused.__file__).parents[1],
        env=environment | {"TRITON_CACHE_DIR": str(folder / "cache")},
        check=True,
    )
    return {name: (folder / name).read_text() for name in ("1.ptx", "3.ptx", "1.ttgir", "3.ttgir")}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_compiled_kernel_keeps_everything_in_registers(channels: int, compiled: dict[str, str]) -> None:
    assert "st.global" in compiled[f"{channels}.ptx"]
    assert ".local" not in compiled[f"{channels}.ptx"]


def test_one_channel_is_written_in_vectors(compiled: dict[str, str]) -> None:
    stores = re.findall(r"st\.global\S*", compiled["1.ptx"])
    assert stores
    assert all(re.search(r"\.v[48]", store) for store in stores), stores


@pytest.mark.parametrize("channels", [1, 3])
def test_neighbouring_threads_gather_neighbouring_pixels(channels: int, compiled: dict[str, str]) -> None:
    """With several pixels to a thread, a warp's gather of a turned image would touch a line of memory for each."""
    text = compiled[f"{channels}.ttgir"]
    gathered = re.findall(r"tt\.load .*tensor<\d+x!tt\.ptr<i8>, (#\w+)>", text)
    assert len(gathered) == 4
    for layout in set(gathered):
        assert re.search(rf"^{layout} = .*sizePerThread = \[1\]", text, re.M)
