"""The page of all models is of the models that there are, and says that every export is exact."""

import json
import runpy

import paddle
import pytest
from model_weights import DATA
from paths import ROOT

import cream  # noqa: F401  (registers models)
import pimm
from cream.counting import count_parameters
from cream.deploy.export import TOLERANCE

STATES = [json.loads(path.read_text())["states"] for path in DATA.glob("*.json")]
OF_TIMM = {name: of["parameters"] for states in STATES for name, of in states.items()}


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "docs" / "make_models.py"))


def test_the_page_is_of_the_measurements_of_every_model(script):
    found = script["facts"]()
    assert list(found) == pimm.list_models(), "python docs/make_models.py measures what is missing"
    assert script["page"](found) == script["PAGE"].read_text()
    for name, of in found.items():
        assert of["parameters"] == (OF_TIMM[name] if name in OF_TIMM else parameters(name)), name
        assert ("macs" in of) == ("eager" in of), name
    assert sum("eager" in of for of in found.values()) > 300


def parameters(name):
    with paddle.LazyGuard():
        return count_parameters(pimm.create_model(name))


def test_exports_are_exact(script):
    measured = [of for of in script["facts"]().values() if "difference" in of]
    assert len(measured) > 80
    assert all(0 < of[key] <= TOLERANCE for of in measured for key in ("difference", "onnx") if key in of)


def test_a_row_is_what_the_script_measures(script):
    pytest.importorskip("paddle2onnx")
    written = script["facts"]()["cream_14"]
    found = {**script["size"]("cream_14"), **script["macs_and_speed"]("cream_14", written["image"])}
    for key in ("parameters", "macs", "image"):  # the rest varies with the machine
        assert found[key] == written[key]
    exported = script["exports"]("cream_14", found["image"], onnx=True)
    assert exported["exported"] > 0 and max(exported["difference"], exported["onnx"]) <= TOLERANCE
