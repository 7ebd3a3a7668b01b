"""Latency: medians of what a clock says, tables that add up, and files that fit their search alone."""

import itertools
import json

import paddle
import pytest
import tiny
from paddle import nn

from cream import cli
from cream.build.search import search_net
from cream.config.load import load_config
from cream.selection import latency
from cream.selection.latency import choice_latency, milliseconds, read_latency
from pimm.errors import ConfigError


def test_a_measurement_is_the_median_of_turns_after_the_warm_up(monkeypatch):
    """The clock ticks when it is read: the first layer takes 100 in the warm-up, then 1 to 5, the second 7."""
    first = [100.0] * latency.WARM_UP + [5.0, 1.0, 4.0, 2.0, 3.0]
    ticks = itertools.chain.from_iterable((0.0, taken, 0.0, 7.0) for taken in first)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(ticks))
    order = []
    runs = [(lambda x: order.append("first"), None), (lambda x: order.append("second"), None)]
    assert milliseconds(runs, 5) == [3000.0, 7000.0]
    assert order == ["first", "second"] * 10  # in turns


def test_each_choice_is_measured_and_a_path_is_a_sum(data, tmp_path, monkeypatch):
    net = search_net(tiny.settings(data, tmp_path)).net
    measured = []

    def run_once(runs, repeats):
        """In place of the clock: a layer's time is its number."""
        for layer, x in runs:
            assert paddle.isfinite(layer(x)).all()
            measured.append(layer)
        return [float(i) for i in range(len(runs))]

    monkeypatch.setattr(latency, "milliseconds", run_once)
    whole = nn.Identity()
    table, taken = choice_latency(net, [whole], paddle.rand([2, 3, 16, 16]), repeats=1)
    # The stem is 0; the first position 1 and 2; the others are alike and measured once, as 3 and 4; the head is 5.
    assert table.choices == [[[1.0, 2.0], [3.0, 4.0], [3.0, 4.0]]]
    assert table.fixed == 0 + 5
    assert taken == [6.0] and measured[-1] is whole
    assert measured[3] is net.blocks[0][1][0]
    assert table(((1, 0, -1),)) == 5 + 2 + 3


def test_the_table_does_not_replace_the_settings(tmp_path, capsys):
    settings = tmp_path / "search.yaml"
    settings.write_text("EPOCHS: 3\n")
    for output, says in {settings: "is the file --cfg", tmp_path / "no" / "a.json": "there is no folder"}.items():
        assert cli.latency(["--cfg", str(settings), "--output", str(output)]) == 2
        assert says in capsys.readouterr().err
    assert settings.read_text() == "EPOCHS: 3\n"


def test_the_command_writes_a_table_that_a_search_takes(data, tmp_path, capsys):
    settings = tmp_path / "search.yaml"
    places = [f"DATA_DIR={data}", f"SUPERNET.SPACE={data / 'space.yaml'}"]
    settings.write_text("EPOCHS: 3\n")
    args = ["--cfg", str(settings), "--output", str(tmp_path / "latency.json"), "--repeats", "3"]
    assert cli.latency([*args, *places, *tiny.SETTINGS, "DATASET.BATCH_SIZE=2"]) == 0
    written = read_latency(tmp_path / "latency.json")
    assert (written.batch_size, written.resolution, written.repeats, written.device) == (2, 16, 3, "cpu")
    searched = search_net(load_config(None, [*tiny.SETTINGS, *places]))
    costs = written.costs_for(searched)
    assert costs.least > 0 and len(written.check) == 5
    for net in written.check:
        assert net["predicted_ms"] == pytest.approx(costs(tuple(map(tuple, json.loads(net["arch"])))))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and lines[-1].startswith(f"mean deviation {written.deviation:.0%}")


@pytest.mark.parametrize(("resolution", "skipped", "factor"), [(32, 0, 1), (16, 1, 1), (16, 0, 1.5)])
def test_a_table_of_another_space_or_size_is_refused(resolution, skipped, factor, data, tmp_path):
    """Or of as many operations that are others."""
    searched = search_net(tiny.settings(data, tmp_path))
    choices = [[[1.0, 2.0]] * (3 - skipped)]
    mflops = [[[factor * cost for cost in costs] for costs in stage][skipped:] for stage in searched.mflops.choices]
    facts = {"batch_size": 1, "device": "cpu", "machine": "m", "threads": 1, "paddle": "3", "repeats": 1, "check": []}
    path = tmp_path / "latency.json"
    path.write_text(json.dumps({"choices": choices, "mflops": mflops, "fixed": 1.0, "resolution": resolution, **facts}))
    with pytest.raises(ConfigError, match=f"was measured at {resolution} pixels .* measure again"):
        read_latency(path).costs_for(searched)


@pytest.mark.parametrize("text", ["", "[]", '{"choices": []}', "\x00"])
def test_a_file_that_is_no_table_is_told(text, tmp_path):
    (tmp_path / "latency.json").write_text(text)
    with pytest.raises(ConfigError, match=r"latency.json is no latency table as tools/latency.py writes it"):
        read_latency(tmp_path / "latency.json")
