"""Variables of the environment that end a command in one line, and an output that nobody reads."""

import os
import subprocess
import sys

import pytest
from paths import ROOT

from pimm.cli import run
from pimm.errors import ConfigError
from pimm.models import create_model


@pytest.mark.parametrize(
    "name", ["PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ID", "PADDLE_LOCAL_SIZE", "PADDLE_LOCAL_RANK", "SOURCE_DATE_EPOCH"]
)
@pytest.mark.parametrize("value", ["x", "", "-1", "1.5", "9" * 5000])
def test_a_number_in_the_environment_that_is_none(name, value, monkeypatch, capsys):
    ran = []
    monkeypatch.setenv(name, value)
    assert run(lambda: ran.append(1)) == 2 and ran == []
    said = capsys.readouterr().err
    assert said.startswith(f"error: the environment's {name} is '{value[:5]}") and said.count("\n") == 1
    assert len(said) < 400
    monkeypatch.setenv(name, "1")
    assert run(lambda: ran.append(1)) == 0 and ran == [1]


def test_printing_into_a_closed_pipe_ends_a_command_without_a_word():
    code = "import sys; from pimm.cli import run; sys.exit(run(lambda: [print('line', i) for i in range(100_000)]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ended:
        assert ended.stdout.readline() == "line 0\n"
        ended.stdout.close()
        assert ended.stderr.read() == ""
    assert ended.returncode == 141  # as of a program that SIGPIPE ends


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_classes": -1}, "num_classes is -1; must be a whole number of at least 0"),
        ({"num_classes": 2.5}, "num_classes is 2.5; must be a whole number"),
        ({"num_classes": "ten"}, "num_classes is 'ten'; must be a whole number"),
        ({"in_chans": 0}, "in_chans is 0; must be a whole number of at least 1"),
    ],
)
def test_impossible_numbers_of_classes_and_channels(options, says):
    with pytest.raises(ConfigError, match=says):
        create_model("mobilenetv3_small_075", **options)


def test_a_wrong_folder_of_images_is_told_before_the_model_is_built(tmp_path, capsys):
    from pimm.commands import lines  # late: the test above must not depend on Paddle's import

    (tmp_path / "train" / "cat").mkdir(parents=True)
    for folder, says in (("trian", "no such folder or tar file of images"), ("", "no split validation here")):
        arguments = ["--data-dir", str(tmp_path / folder), "--model", "no_such_model"]
        assert lines.train(arguments) == 2
        assert says in capsys.readouterr().err
