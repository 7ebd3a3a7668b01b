"""Mistakes in the description of a space: what the message says."""

import os

import pytest
from space_files import ALL, SMALL

from cream.config.load import load_config
from pimm.errors import ConfigError

MISTAKES = {
    "no mapping": (
        "[1]",
        "space.yaml is [1]; must hold stages, operations, stem, stem_stride, head, head_type, activation, counting",
    ),
    "empty": ("", "space.yaml: stages is missing"),
    "unknown key": (ALL + "hed: 3", "space.yaml: hed is unknown; did you mean head?"),
    "twice": (ALL + "head: 3", "space.yaml: head is given twice"),
    "no stages": ("stages: []", "space.yaml: stages is []; must be a list, not an empty one"),
    "stage no mapping": ("stages: [3]", "space.yaml: stages[0] is '3'; must hold channels, stride, depth, operations"),
    "no channels": ("stages: [{stride: 2}]", "space.yaml: stages[0].channels is missing"),
    "no operations": ("stages: [{channels: 8}]", "space.yaml: stages[0] has no operations; they must be given there"),
    "wrong type": (ALL.replace("head: 24", "head: wide"), "space.yaml: head is 'wide'; must be a whole number"),
    "stride": (ALL.replace("stride: 2,", "stride: 3,"), "stages[1].stride is '3'; must be a whole number, 1 or 2"),
    "depth upside down": (ALL.replace("[1, 3]", "[3, 1]"), "stages[1].depth is ['3', '1']".replace("'", "")),
    "depth of none": (ALL.replace("[1, 3]", "0"), "stages[1].depth is [0]; must be a list of whole numbers, one num"),
    "shape in a skip": (ALL.replace("[1, 3]", "[0, 3]"), "stages[1].depth begins at 0, but its first block changes"),
    "even kernel": (
        ALL.replace("kernel: 5", "kernel: 4"),
        "operations[1].kernel is '4'; must be a whole number, an",
    ),
    "block": (ALL.replace("block: er", "block: mb"), "operations[2].block is 'mb'; must be one of ir, ds, er, cn, ru"),
    "activation": (ALL.replace("hard_swish", "gelu"), "activation is 'gelu'; must be one of swish, hard_swish"),
    "of another block": (
        ALL.replace("{block: cn, kernel: 1}", "{block: cn, kernel: 1, se: 0.25}"),
        "space.yaml: operations[3].se is no field of a block cn; it has block, kernel, dilation",
    ),
    "wide": (
        ALL.replace("channels: 16", "channels: 10001"),
        "channels is '10001'; must be a whole number, at least 1 and at",
    ),
    "deep": (
        ALL.replace("[1, 3]", "[1, 101]"),
        "stages[1].depth is [1, 101]; must be a list of whole numbers, one num",
    ),
    "large kernel": (
        ALL.replace("kernel: 5", "kernel: 101"),
        "must be a whole number, an odd one, at least 1 and at most 99",
    ),
    "huge": (
        ALL.replace("expansion: 1.5", "expansion: 1e300"),
        "expansion is '1e300'; must be a number, at least 1 and at most 100",
    ),
    "many": ("stages: [" + "{channels: 8}, " * 1001 + "]", "; must be a list, not an empty one, of at most 1000"),
    "long key": (f"{'x' * 400}: 1", "xxx... is unknown; known are stages"),
    "lines": ('"a\\nb": 1\n"a\\nb": 2', "a\\nb is given twice"),
    "no YAML": ("stages: [", "space.yaml, line 1: not valid YAML"),
}


@pytest.mark.parametrize(("text", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_file_key_and_what_is_valid(text, says, tmp_path):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(None, [f"SUPERNET.SPACE={tmp_path / 'space.yaml'}"])
    assert says in str(error.value).replace(f"{tmp_path}{os.sep}", "") and "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            "SUPERNET:\n  SPACE:\n    stem: 0\n",
            "line 2: SUPERNET.SPACE.stem is '0'; must be a whole number, at",
        ),
        ("SUPERNET:\n  SPACE: {a: {b: 1, b: 2}}\n", "line 2: SUPERNET.SPACE.b is given twice"),
        (
            "SUPERNET:\n  SPACE: [1]\n",
            "line 2: SUPERNET.SPACE is [1]; must be None or the name of a file, or",
        ),
        (f"SUPERNET:\n  SPACE: {SMALL}\n", "line 2: SUPERNET.PRE_PROB has 6 values; must have 6"),
        (
            f"SUPERNET:\n  SPACE: {SMALL}\n  RESUNIT: true\n",
            "line 3: SUPERNET.RESUNIT changes Cream's own space; must be left out beside SUPERNET.SPACE",
        ),
    ],
)
def test_a_mistake_in_settings(settings, says, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(settings)
    if says.endswith("must have 6"):  # five operations and skips: as many as Cream's own
        assert load_config(file).SUPERNET.SPACE is not None
        return
    with pytest.raises(ConfigError) as error:
        load_config(file)
    assert says in str(error.value) and str(file) in str(error.value)
