"""The scripts of Paddle's reproduction challenge: what they read and write; a whole run takes minutes."""

import shutil
import subprocess

import pytest
from paths import ROOT

from cream.config import load_config

PARAMS = "test_tipc/configs/cream_14/train_infer_python.txt"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def bash(code, **variables):
    """Return what bash prints for code that has the functions of the scripts."""
    settings = "".join(f"{name}={value}; " for name, value in variables.items())
    command = ["bash", "-c", f"{settings}source test_tipc/common_func.sh; {code}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("mode", ["lite_train_lite_infer", "whole_train_whole_infer"])
def test_the_settings_of_each_mode_load(mode):
    script, option, cfg, *overrides = bash("value_of_mode norm_train", PARAMS=PARAMS, MODE=mode).split()
    for key in ("EPOCHS", "DATASET.BATCH_SIZE", "DATA_DIR"):
        overrides.append(f"{key}={bash(f'value_of_mode {key}', PARAMS=PARAMS, MODE=mode)}")
    assert (script, option) == ("tools/retrain.py", "--cfg")
    settings = load_config(ROOT / cfg, overrides)
    lite = mode.startswith("lite")
    assert settings.NET.SELECTION == 14 and (4 if lite else 500) == settings.EPOCHS
    assert ("data/fashion_mnist" if lite else "data/imagenet") == settings.DATA_DIR


def test_values_lists_and_what_is_left_out(tmp_path):
    params = tmp_path / "params.txt"
    params.write_text("a:null\nb:x|y z\nc:one=1|two=K=2 L=3\nd:\n")
    read = "for key in a b d none; do echo \"[$(value $key)]\"; done; value_of_mode c; setting K V; setting K ''"
    assert bash(read, PARAMS=params, MODE="two") == "[]\n[x|y z]\n[]\n[]\nK=2 L=3K=V"


def test_each_command_leaves_a_line_that_says_how_it_ended(tmp_path):
    results = tmp_path / "results.log"
    variables = {"RESULTS": results, "MODEL_NAME": "net", "FAILED": "0"}
    commands = f"run {tmp_path}/a.log echo one >/dev/null; run {tmp_path}/b.log false >/dev/null; echo $FAILED"
    assert bash(commands, **variables) == "1\n"
    assert results.read_text() == (
        "Run successfully with command - net - echo one!\n"
        f"Run failed with command - net - false! (exit code 1, log {tmp_path}/b.log)\n"
    )
    assert (tmp_path / "a.log").read_text() == "$ echo one\none\n"


@pytest.mark.parametrize("script", ["prepare", "test_train_inference_python"])
def test_a_mode_that_is_none(script):
    command = ["bash", f"test_tipc/{script}.sh", PARAMS, "lite"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "there is no mode lite; it can be lite_train_lite_infer" in done.stderr
    assert done.stderr.count("\n") == 1
