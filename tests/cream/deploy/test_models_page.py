"""The page of all models is of the models that there are, and says that every export is exact."""

import re
import runpy

import paddle
import pytest
from paths import ROOT

import cream  # noqa: F401  (registers models)
import pimm
from cream.counting import count_parameters
from cream.deploy.export import TOLERANCE

PAGE = ROOT / "docs" / "models.md"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "docs" / "make_models.py"))


def test_every_model_has_a_row_with_its_size_and_exact_exports(script):
    rows = {line.split(" | ")[0][2:]: line.strip("| ").split(" | ") for line in script["rows_of_page"]().values()}
    assert list(rows) == pimm.list_models()
    for name, (_, parameters, macs, _, sizes, *differences) in rows.items():
        with paddle.LazyGuard():
            net = pimm.create_model(name)
        assert parameters == f"{count_parameters(net) / 1e6:.2f}M", name
        assert re.fullmatch(r"[\d,]+M", macs) and sizes.startswith("64")
        assert len(differences) == 2 and all(0 < float(each) <= TOLERANCE for each in differences), name


def test_a_row_is_what_the_script_measures(script):
    pytest.importorskip("paddle2onnx")
    row, written = (script["measure"]("cream_14"), script["rows_of_page"]()["cream_14"])
    assert row.split(" | ")[:5] == written.split(" | ")[:5]  # the differences vary with the machine
