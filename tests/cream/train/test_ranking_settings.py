"""The settings that docs/ranking.md recommends for a space of one's own."""

import re
from pathlib import Path

import numpy as np
import pytest
import tiny
import yaml
from tables import rows_of

from cream import jobs
from cream.build import search_net
from cream.build.checks import check_search, check_supernet
from cream.config import load_config
from cream.train.draws import FairDraw

PAGE = Path(__file__).resolve().parents[3] / "docs" / "ranking.md"
OPERATIONS = [{"kernel": kernel, "expansion": expansion} for kernel in (3, 5) for expansion in (1, 2, 3)]


@pytest.mark.parametrize(("depth", "paths"), [(2, 6), ([1, 3], 7)], ids=["six operations", "with skipped blocks"])
def test_the_pages_settings_train_every_choice_once_on_a_batch(depth, paths, tmp_path):
    (text,) = re.findall(r"```yaml\n(SUPERNET:\n.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "search.yaml").write_text(text)
    stages = [{"channels": 8, "stride": 2, "depth": depth}]
    space = {"stem": 8, "head": 16, "activation": "relu", "operations": OPERATIONS, "stages": stages}
    (tmp_path / "my_space.yaml").write_text(yaml.safe_dump(space))
    cfg = load_config(tmp_path / "search.yaml", [f"SUPERNET.PATHS={paths}"])
    check_search(cfg)
    check_supernet(cfg)
    searched = search_net(cfg)
    rows = [searched.space.encode(arch) for arch in FairDraw(searched.sampler, paths)(np.random.default_rng(0))]
    assert max(len(options) for options in searched.space.options) == len(rows) == paths
    for options, drawn in zip(searched.space.options, np.transpose(rows)):
        assert set(drawn) == set(options)
        assert len(options) < paths or len(set(drawn)) == paths


def test_a_search_by_fair_paths_selects_below_a_flops_limit_afterwards(tmp_path):
    tiny.write_images(tmp_path)
    settings = ("METHOD=multi_path", "PATHS=3", "DRAW=fair", "UPDATES=each", "ZERO_RESIDUAL=True", "ESTIMATE=True")
    every = "SUPERNET.SELECT_RANDOM=18"  # all paths of the space
    folder = tiny.run_search(tmp_path, tmp_path / "out", *(f"SUPERNET.{text}" for text in settings), every)
    costs = search_net(load_config(folder / "config.yaml")).mflops
    limit = (costs.least + costs.most) / 2
    with tiny.without_report():
        found = jobs.select(folder, [f"SUPERNET.FLOPS_MAXIMUM={limit}"], tmp_path / "cheap")
    before, after = (
        [float(row["mflops"]) for row in rows_of(path / "candidates.csv")] for path in (folder, tmp_path / "cheap")
    )
    assert len(before) == 18 and max(before) > limit
    assert found.mflops in after and sorted(after) == sorted(cost for cost in before if cost <= limit)
