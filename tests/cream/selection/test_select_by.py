"""The metric that ranks the candidates of a selection."""

import json

import numpy as np
import pytest
import tiny
from tables import rows_of

from cream import build, jobs
from cream.space import format_arch
from pimm.errors import ConfigError


@pytest.mark.parametrize("by", ["prec1", "loss"])
def test_the_setting_ranks_and_selects(by, searched, tmp_path):
    with tiny.without_report():
        found = jobs.select(searched, ["SUPERNET.SELECT_RANDOM=40", f"SUPERNET.SELECT_BY={by}"], tmp_path)
    columns = ("prec1", "loss", "mflops")
    rows = [{name: float(row[name]) for name in columns} for row in rows_of(tmp_path / "candidates.csv")]
    keys = {"prec1": lambda row: (-row["prec1"], row["mflops"]), "loss": lambda row: (row["loss"], row["mflops"])}
    assert rows == sorted(rows, key=keys[by])
    assert rows != sorted(rows, key=keys["loss" if by == "prec1" else "prec1"])  # the metrics disagree here
    assert json.loads((tmp_path / "architecture.json").read_text())[by] == rows[0][by] == getattr(found, by)


def test_an_estimate_chooses_the_random_paths_that_are_scored(searched):
    _, cfg = build.settings_of_search(searched, ["SUPERNET.SELECT_RANDOM=3"])
    selection = build.selection_of(cfg, build.search_net(cfg))
    drawn = selection.paths_to_score(None)
    every = {selection.sampler(np.random.default_rng(seed)) for seed in range(300)}
    assert len(drawn) == 3 and len(every) == 18  # all there are
    losses = {arch: (7 * number) % 18 for number, arch in enumerate(sorted(every))}
    chosen = selection.paths_to_score(None, losses.__getitem__)
    assert [losses[arch] for arch in chosen] == [0, 1, 2]


def test_loss_and_estimate_are_added_up(searched, tmp_path, caplog):
    caplog.set_level("INFO")
    _, cfg = build.settings_of_search(searched, ["SUPERNET.SELECT_RANDOM=18", "SUPERNET.SELECT_BY=loss_and_estimate"])
    selection = build.selection_of(cfg, build.search_net(cfg))
    archs = selection.paths_to_score(None)
    losses = {format_arch(candidate.arch): candidate.loss for candidate in selection.score(archs)}
    assert list(losses.values()) == sorted(losses.values())
    spread = max(losses.values()) - min(losses.values())
    estimates = {arch: spread * number for number, arch in enumerate(reversed(losses))}  # of the opposite order
    found = selection.select(None, tmp_path, lambda arch: estimates[format_arch(arch)] / 2)
    sums = {arch: loss + estimates[arch] / 2 for arch, loss in losses.items()}
    assert [row["arch"] for row in rows_of(tmp_path / "candidates.csv")] == sorted(sums, key=sums.get) != list(losses)
    assert format_arch(found.arch) == min(sums, key=sums.get)
    assert found.estimate == estimates[format_arch(found.arch)] / 2
    for row in rows_of(tmp_path / "candidates.csv"):
        assert float(row["loss"]) + float(row["estimate"]) == pytest.approx(sums[row["arch"]], rel=1e-4)
    assert f"loss {found.loss:.4f} and estimate {found.estimate:.4f}, " in caplog.text


def test_without_an_estimate_nothing_can_be_added_up(searched, tmp_path):
    by = "SUPERNET.SELECT_BY=loss_and_estimate"
    with pytest.raises(ConfigError, match=f"{by} needs a search with SUPERNET.ESTIMATE=True"):
        jobs.select(searched, [by], tmp_path / "select")
    with pytest.raises(ConfigError, match=f"{by} ranks no evolution; must be prec1 or loss"):
        jobs.evolve(searched, [by], tmp_path / "evolve")
    _, cfg = build.settings_of_search(searched, [by])
    with pytest.raises(ConfigError, match=f"{by} needs SUPERNET.ESTIMATE=True"):
        build.check_search(cfg)
    cfg.SUPERNET.ESTIMATE = True
    build.check_search(cfg)
