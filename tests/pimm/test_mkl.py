"""MKL takes code with AVX2 on every processor that has it."""

import os
import subprocess
import sys

import pytest
from paths import ROOT

from pimm.mkl import read_processor, wants_avx2

PRODUCT = """
import hashlib, os, {module}, paddle
a = paddle.sin(paddle.arange(512 * 512, dtype="float32")).reshape([512, 512])
print(os.environ.get("MKL_DEBUG_CPU_TYPE"), hashlib.sha256((a @ a).numpy().tobytes()).hexdigest())
"""


def run_product(module, **variables):
    """Return MKL's variable after an import, and the checksum of a product, whose last bits tell the code apart."""
    environment = {name: value for name, value in os.environ.items() if name != "MKL_DEBUG_CPU_TYPE"}
    environment.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", **variables)
    code = PRODUCT.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return tuple(done.stdout.split())


@pytest.mark.parametrize(
    "vendor, flags, wanted",
    [
        ("AuthenticAMD", "fpu fma avx avx2", True),
        ("HygonGenuine", "avx2 fma avx512f", True),
        ("GenuineIntel", "fpu fma avx avx2", False),
        ("AuthenticAMD", "fpu fma avx", False),
        ("AuthenticAMD", "fpu avx2", False),
    ],
)
def test_processors_that_mkl_does_not_know(tmp_path, vendor, flags, wanted):
    file = tmp_path / "cpuinfo"
    one = "processor\t: 0\nvendor_id\t: {}\nflags\t\t: {}\n\n"
    file.write_text(one.format(vendor, flags) + one.format("another", "none"))
    assert read_processor(file)["vendor_id"] == vendor and wants_avx2(read_processor(file)) is wanted


def test_no_description_of_the_processor(tmp_path):
    assert read_processor(tmp_path / "none") == {} and not wants_avx2({})


@pytest.mark.parametrize("module", ["pimm", "cream"])
def test_mkl_is_told_before_the_first_product(module):
    found = run_product(module)
    if not wants_avx2(read_processor()):
        assert found == run_product("numpy") and found[0] == "None"
        return
    assert found == run_product("numpy", MKL_DEBUG_CPU_TYPE="5")
    assert found[1] != run_product("numpy")[1]


def test_the_users_choice_is_kept():
    assert run_product("pimm", MKL_DEBUG_CPU_TYPE="0")[0] == "0"
