"""Settings: the official files' values, types, ranges, overrides, and messages for mistakes."""

import ast
import functools
import logging
import subprocess
import sys

import golden
import pytest
import yaml
from paths import ROOT

from cream.build.recipe import PAPER_RECIPE
from cream.config.dump import dump
from cream.config.keys import ALIASES, INERT, KEYS, SECTIONS, siblings
from cream.config.load import load_config
from cream.config.schema import Config
from cream.mobile.published import CHILD_NETS, child_spec
from pimm.errors import ConfigError

FACTS = golden.facts("official_facts")
ARCH = ((0,), (3,), (3, 3), (3, 1, 3), (3, 3, 3, 3), (3, 3, 3), (0,))


def value(cfg, name):
    return functools.reduce(getattr, name.split("."), cfg)


def nested(flat):
    """``{"SECTION.KEY": value}`` as the tree that a YAML file holds."""
    tree = {}
    for name, item in flat.items():
        *sections, last = name.split(".")
        functools.reduce(lambda branch, part: branch.setdefault(part, {}), sections, tree)[last] = item
    return tree


def meant(item):
    """What a value of an official file stands for: numbers, tuples and None also where YAML leaves text."""
    try:
        item = ast.literal_eval(item) if isinstance(item, str) else item
    except (ValueError, SyntaxError):
        return item
    return tuple(item) if isinstance(item, list) else item


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return path

    return write


# Official files


def test_defaults_are_the_official_ones():
    defaults = {name: meant(item) for name, item in FACTS["config_defaults"].items() if name not in INERT}
    assert {name: value(Config(), name) for name in defaults} == defaults


def test_official_keys_without_a_field_are_inert():
    assert set(FACTS["config_defaults"]) - set(KEYS) == set(INERT)
    assert not set(INERT) & set(KEYS)
    assert set(ALIASES.values()) <= set(KEYS)


@pytest.mark.parametrize("name", sorted(FACTS["yaml_files"]))
def test_official_file_loads_with_typed_values(name, write, caplog):
    flat = FACTS["yaml_files"][name]
    cfg = load_config(write(yaml.safe_dump(nested(flat))))
    expected = {key: meant(item) for key, item in flat.items() if key not in INERT}
    assert {key: value(cfg, key) for key in expected} == expected
    assert {key: type(value(cfg, key)) for key in expected} == {
        key: type(value(Config(), key)) if item is not None else type(None) for key, item in expected.items()
    }
    untouched = {key: known.default for key, known in KEYS.items() if key not in flat}
    assert {key: value(cfg, key) for key in untouched} == untouched
    gpus = flat.get("NUM_GPU", 1) if "LR" in flat else 1
    assert [f"NUM_GPU is {gpus} and LR={cfg.LR:g} is meant for" in line for line in caplog.messages] == [True] * (
        gpus > 1
    )


@pytest.mark.parametrize("name", sorted(name for name in FACTS["yaml_files"] if "/train" not in name))
def test_official_file_names_a_published_net(name, write):
    flat = FACTS["yaml_files"][name]
    cfg = load_config(write(yaml.safe_dump(nested(flat))))
    meant = {42: 43, 470: 481}.get(flat["NET.SELECTION"], flat["NET.SELECTION"])
    assert child_spec(cfg.NET.SELECTION, cfg.NET.INPUT_ARCH, cfg.DATASET.IMAGE_SIZE) is CHILD_NETS[meant]


@pytest.mark.parametrize(
    ("processes", "text", "overrides", "says"),
    [
        (1, "NUM_GPU: 8\nLR: 1.0\n", [], ["settings.yaml, line 1: NUM_GPU is 8", "has 1", "_node 8", "LR=0.125"]),
        (2, "NUM_GPU: 8\nLR: 0.064\n", [], ["has 2", "LR=0.016"]),
        (1, "NUM_GPU: 8\nLR: 1.0\n", ["LR=1.0", "NUM_GPU=2"], ["command line: NUM_GPU is 2", "LR=0.5"]),
        (8, "NUM_GPU: 8\nLR: 1.0\n", [], []),
        (1, "NUM_GPU: 1\nLR: 1.0\n", [], []),
        (1, "NUM_GPU: 8\n", [], []),
        (1, "NUM_GPU: 8\nLR: 1.0\n", ["LR=0.125"], []),
        (1, "NUM_GPU: 8\nLR: 1.0\n", ["NUM_GPU=1"], []),
    ],
)
def test_fewer_processes_than_a_learning_rate_was_meant_for(
    processes, text, overrides, says, write, monkeypatch, caplog
):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(processes))
    load_config(write(text), overrides)
    warned = " ".join(line for line in caplog.messages if "meant for" in line)
    assert bool(warned) == bool(says)
    assert [part for part in says if part not in warned] == []


def test_the_first_process_alone_warns_of_settings(write, monkeypatch, caplog):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    told = []
    for rank in ("1", "0"):
        monkeypatch.setenv("PADDLE_TRAINER_ID", rank)
        load_config(write("NUM_GPU: 8\nLR: 1.0\nVERBOSE: True\n"))
        told.append([line.partition(":")[2] for line in caplog.messages])
    assert told[0] == []
    assert [("VERBOSE has no effect" in line, "NUM_GPU is 8" in line) for line in told[1]] == [
        (True, False),
        (False, True),
    ]


def test_plain_yaml_text_becomes_numbers(write):
    cfg = load_config(write("WARMUP_LR: 1e-6\nCLIP_GRAD: None\nSUPERNET:\n  PRE_PROB: (0.05,0.2,0.05,0.5,0.05,0.15)\n"))
    assert (cfg.WARMUP_LR, cfg.CLIP_GRAD) == (1e-6, None)
    assert cfg.SUPERNET.PRE_PROB == (0.05, 0.2, 0.05, 0.5, 0.05, 0.15)


@pytest.mark.parametrize(
    "text",
    [
        f"MODEL_SELECTION: -1\nINPUT_ARCH: {[list(stage) for stage in ARCH]}",
        f"NET:\n  MODEL_SELECTION: -1\n  INPUT_ARCH: {[list(stage) for stage in ARCH]}",
        f"NET:\n  SELECTION: -1\n  INPUT_ARCH: '{[list(stage) for stage in ARCH]}'",
        f"INPUT_ARCH: {[list(stage) for stage in ARCH]}",
    ],
)
def test_nni_names_of_an_architecture(text, write):
    cfg = load_config(write(text))
    assert (cfg.NET.SELECTION, cfg.NET.INPUT_ARCH) == (-1, ARCH)


def test_inert_keys_are_noted_once_where_they_were_changed(write, caplog):
    with caplog.at_level(logging.WARNING):
        load_config(write("NUM_GPU: 8\nSAVE_IMAGES: True\nNET:\n  EMA:\n    FORCE_CPU: True\n"))
    images, ema = (record.getMessage() for record in caplog.records)
    assert "settings.yaml, line 2: SAVE_IMAGES has no effect" in images
    assert "settings.yaml, line 5: NET.EMA.FORCE_CPU has no effect here: the average lives where the net does" in ema


# Overrides


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("LR=0.5", "LR", 0.5),
        ("LR=1e-3", "LR", 1e-3),
        ("EPOCHS=1e2", "EPOCHS", 100),
        ("MODEL=112", "MODEL", "112"),
        ("MODEL=a=b", "MODEL", "a=b"),
        ("AMP=yes", "AMP", True),
        ("AMP=False", "AMP", False),
        ("NET.EMA.DECAY=0.99", "NET.EMA.DECAY", 0.99),
        ("AUGMENTATION.AA=None", "AUGMENTATION.AA", None),
        ("LR_NOISE=0.4,0.9", "LR_NOISE", (0.4, 0.9)),
        ("LR_NOISE=0.4", "LR_NOISE", (0.4,)),
        ("DATASET.SCALE=[0.5, 1]", "DATASET.SCALE", (0.5, 1.0)),
        ("SUPERNET.FLOPS_MAXIMUM=200", "SUPERNET.FLOPS_MAXIMUM", 200.0),
        ("DATASET.IMG_EXTENSIONS=.tif, .gif", "DATASET.IMG_EXTENSIONS", (".tif", ".gif")),
        ("DATASET.IMG_EXTENSIONS=['.tif']", "DATASET.IMG_EXTENSIONS", (".tif",)),
        ("DATASET.IMG_EXTENSIONS=[]", "DATASET.IMG_EXTENSIONS", ()),
        ("NET.FREEZE=conv_stem, blocks.[0-3].*", "NET.FREEZE", ("conv_stem", "blocks.[0-3].*")),
        ("NET.FREEZE=['blocks.[!6]']", "NET.FREEZE", ("blocks.[!6]",)),
        ("DEVICE=", "DEVICE", ""),
    ],
)
def test_override(text, name, expected):
    result = value(load_config(None, [text]), name)
    assert result == expected
    assert type(result) is type(expected)


def test_the_last_override_wins(write):
    assert load_config(write("LR: 0.1"), ["LR=0.2", "LR=0.3"]).LR == 0.3


# Writing


@pytest.mark.parametrize("name", sorted(FACTS["yaml_files"]))
def test_dump_loads_back_equal(name, write):
    cfg = load_config(write(yaml.safe_dump(nested(FACTS["yaml_files"][name]))))
    assert load_config(write(dump(cfg))) == cfg


def test_the_papers_recipe_is_that_of_the_file():
    file, paper = load_config(ROOT / "configs/retrain.yaml"), load_config(None, PAPER_RECIPE)
    for name in ("DATA_DIR", "SAVE_PATH", "MODEL", "WORKERS", "RECOVERY_INTERVAL"):  # of a machine, not of a recipe
        setattr(paper, name, getattr(file, name))
    assert paper == file


def test_dump_is_short_and_plain_yaml(write):
    cfg = load_config(None, [f"NET.INPUT_ARCH={ARCH}", "WARMUP_LR=1e-6", "MODEL=123", "AUGMENTATION.AA=None"])
    text = dump(cfg)
    assert load_config(write(text)) == cfg
    assert "INPUT_ARCH: [[0], [3], [3, 3], [3, 1, 3], [3, 3, 3, 3], [3, 3, 3], [0]]\n" in text
    tree = yaml.safe_load(text)
    assert (tree["WARMUP_LR"], tree["MODEL"], tree["AUGMENTATION"]) == (1e-6, "123", {"AA": None})
    assert "SUPERNET" not in tree


# Mistakes: what was given, and what the message must say

MISTAKES = {
    "PTIENCE_EPOCHS=1": ["unknown key PTIENCE_EPOCHS", "PATIENCE_EPOCHS?"],
    "POOL_SIZE=3": ["unknown key POOL_SIZE", "SUPERNET.POOL_SIZE?"],
    "SUPERNET.POOLSIZE=3": ["SUPERNET.POOL_SIZE?"],
    "supernet.pool_size=3": ["SUPERNET.POOL_SIZE?"],
    "NET.QQQ=3": ["unknown key NET.QQQ", "known are NET.SELECTION, NET.INPUT_ARCH"],
    "QQQ.QQQ=3": ["unknown key QQQ.QQQ", "known sections are AUGMENTATION, BATCHNORM, DATASET"],
    "NET=3": ["NET is a section", "NET.SELECTION"],
    "LR": ["'LR' is no setting", "KEY=VALUE"],
    "LR=fast": ["LR is 'fast'", "a number, at least 0"],
    "LR=nan": ["LR is 'nan'", "a number"],
    "LR=-1": ["at least 0"],
    "EPOCHS=3.5": ["EPOCHS is '3.5'", "a whole number, at least 1"],
    "EPOCHS=0": ["at least 1"],
    "SEED=4294967296": ["SEED is '4294967296'", "a whole number, from 0 to 4294967295"],
    "LR_NOISE=[[1]": ["None or a list of numbers"],
    "LR_NOISE={[1]: 2}": ["None or a list of numbers"],
    "LR_NOISE=" + "(" * 150: ["LR_NOISE is '((", "None or a list of numbers"],
    "LR_NOISE=" + "-" * 9999 + "1": ["LR_NOISE is '--", "None or a list of numbers"],
    "AMP=1": ["AMP is '1'", "true or false"],
    "DATASET.BATCH_SIZE=0": ["DATASET.BATCH_SIZE is '0'", "at least 1"],
    "DATASET.NUM_CLASSES=None": ["DATASET.NUM_CLASSES is 'None'", "a whole number"],
    "DATASET.INTERPOLATION=best": ["one of bilinear, bicubic"],
    "DATASET.CROP_PCT=1.5": ["None or a number, above 0 and at most 1"],
    "DATASET.SCALE=(1, 0.5)": ["0 < low <= high <= 1"],
    "DATASET.MEAN=0.5": ["three of them"],
    "DATA_DIR=": ["DATA_DIR is ''", "not empty"],
    "NET.DROPOUT_RATE=1": ["at least 0 and below 1"],
    "NET.EMA.DECAY=9998": ["from 0 to 1"],
    "NET.SELECTION=-1": ["NET.INPUT_ARCH must be given"],
    "NET.INPUT_ARCH=[[0],[3]": ["NET.INPUT_ARCH is '[[0],[3]'", "list of lists of whole numbers"],
    "NET.INPUT_ARCH=[0, 3]": ["list of lists of whole numbers"],
    "NET.INPUT_ARCH=[[0],[]]": ["no stage of them empty"],
    "SCHED=cosin": ["SCHED is 'cosin'", "one of sgd, linear, cosine, tanh, step, plateau"],
    "SUPERNET.POOL_SIZE=0": ["at least 1"],
    "SUPERNET.PICK_METHOD=top2": ["one of meta, top1"],
    "SUPERNET.HOW_TO_PROB=odd": ["one of even, pre_prob, teacher"],
    "SUPERNET.PRE_PROB=(0,0,0,0,0,0)": ["none below 0 and at least one above"],
    "SUPERNET.PRE_PROB=(1,-1,1,1,1,1)": ["none below 0"],
    "SUPERNET.PRE_PROB=(1,1)": ["SUPERNET.PRE_PROB has 2 values", "must have 6"],
    "SUPERNET.RESUNIT=True": ["SUPERNET.PRE_PROB has 6 values", "must have 7"],
    "SUPERNET.FLOPS_MINIMUM=601": ["SUPERNET.FLOPS_MINIMUM is 601", "at most SUPERNET.FLOPS_MAXIMUM, which is 600"],
    "SUPERNET.STAGE_DEPTHS=(1,2)": ["five of them, each at least 1"],
    "DATASET.IMG_EXTENSIONS=.tif, gif": [
        "DATASET.IMG_EXTENSIONS is '.tif, gif'",
        "each a dot and letters, such as .tif",
    ],
    "DATASET.IMAGE_SIZE=1e18": ["DATASET.IMAGE_SIZE is '1e18'", "at least 8 and at most 4096"],
    "EPOCHS=1e300": ["EPOCHS is '1e300'", "at least 1 and at most 1e+09"],
    "EPOCHS=" + "9" * 5000: ["EPOCHS is '999", "at most 1e+09"],
    "LR=1e400": ["LR is '1e400'", "a number, at least 0"],
    "WORKERS=1e6": ["at most 1024"],
    "SUPERNET.STAGE_DEPTHS=(1,1,1,1,10**9)": ["five of them"],
    "SUPERNET.SHUFFLE.DEPTHS=(1,1,1,1000000000)": ["each at least 1 and at most 100"],
    "SUPERNET.SHUFFLE.CHANNELS=(64,160,320,100000)": ["the last at most 10000"],
    "NET.SELECTION=1e12": ["NET.SELECTION is '1e12'", "at least -1 and at most 1e+06"],
    "NET.INPUT_ARCH=[[0],[123456789]]": ["none above 999"],
    "NET.INPUT_ARCH=[[" + "5," * 1000 + "5]]": ["at most 1000 numbers"],
    "MODEL=a/b": ["MODEL is 'a/b'", "the name of one folder"],
    "MODEL=../b": ["the name of one folder"],
    "MODEL=..": ["the name of one folder"],
    "MODEL=": ["MODEL is ''", "the name of one folder"],
    "MODEL=\udce4": ["MODEL is '\\udce4'", "text in UTF-8, without control characters"],
    "MODEL=" + "m" * 256: ["at most 255 bytes"],
    "DATA_DIR=\udce4": ["DATA_DIR is '\\udce4'", "text in UTF-8"],
    "DATA_DIR=a\0b": ["DATA_DIR is 'a\\x00b'", "without control characters"],
    "SUPERNET.SPACE=a\0b": ["SUPERNET.SPACE is 'a\\x00b'", "without control characters"],
    "RETRAIN_CFG=a\nb": ["RETRAIN_CFG is 'a\\nb'"],
    "K" * 5000 + "=1": ["unknown key KKK"],
    "k" * 5000: ["is no setting"],
    "OPT.\udce4=1": ["unknown key OPT.\\udce4"],
    "SUPERNET.ZZZZZZZZZZZZZZ=3": ["known are SUPERNET.FAMILY", ", ..."],
    "configs/train.yaml": ["is no setting", "--cfg configs/train.yaml"],
}


@pytest.mark.parametrize(("text", "says"), MISTAKES.items(), ids=MISTAKES)
def test_mistake_on_the_command_line(text, says):
    with pytest.raises(ConfigError) as error:
        load_config(None, [text])
    message = str(error.value)
    assert message.startswith("command line: ")
    assert "\n" not in message and len(message) < 400
    message.encode()
    assert [part for part in says if part not in message] == []


# Forty aliases of aliases, 2 to the power of 40 values.
UNFOLDING = f"[&a0 [0, 0], {', '.join(f'&a{n + 1} [*a{n}, *a{n}]' for n in range(40))}]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "LR: 1\n\nDATASET:\n  BATCH_SIZES: 3\n",
            "line 4: unknown key DATASET.BATCH_SIZES; did you mean DATASET.BATCH_SIZE?",
        ),
        ("LR: 1\nEPOCHS: many\n", "line 2: EPOCHS is 'many'; must be a whole number, at least 1"),
        ("LR: 1\nLR: 2\n", "line 2: LR is given twice"),
        ("NET: 14\n", "line 1: NET is a section; must hold keys, not a value"),
        ("EPOCHS: [1, 2]\n", "line 1: EPOCHS is [1, 2]; must be a whole number"),
        ("EPOCHS: {A: 1}\n", "line 1: EPOCHS is {A: 1}; must be a whole number"),
        ("LR_NOISE: {A: 1}\n", "line 1: LR_NOISE is {A: 1}; must be None or a list of numbers"),
        ("LR: 1\nDATA_DIR: &x [*x]\n", "line 2: DATA_DIR holds itself"),
        ("NET: &x [*x]\n", "line 1: NET holds itself"),
        ("LR: 1\n? [A, B]\n: 1\n", "line 2: a list or a section stands where the name of a key must be"),
        ("EPOCHS: {[A]: 1}\n", 'line 1: EPOCHS is {"[A]": 1}; must be a whole number'),
        ("LR: " + "[" * 9999, "not valid YAML"),
        ("LR: [\n", "line 2: not valid YAML"),
        ("LR: 1\nMODEL: \x00\n", "not valid YAML"),
        (f"{'k' * 1000}: 1\n{'k' * 1000}: 1\n", "line 2: kkk"),
        (f"EPOCHS: {{{'k' * 1000}: 1, {'k' * 1000}: 1}}\n", "line 1: EPOCHS.kkk"),
        ("SEED: 1 #" + "x" * 2**18, "is larger than 256 kB"),
        (f"DATA_DIR: {UNFOLDING}", "aliases (*NAME) unfold to more than 100000 values"),
        (f"NET: {UNFOLDING}", "aliases (*NAME) unfold to more than 100000 values"),
        (f"SUPERNET:\n  SPACE:\n    stages: {UNFOLDING}", "aliases (*NAME) unfold to more than 100000 values"),
        (f"QQQ: {UNFOLDING}", "aliases (*NAME) unfold to more than 100000 values"),
        ("RETRAIN_CFG: a\\x00b\nNET: 3", "line 2: NET is a section"),
        (f"RETRAIN_CFG: {'a' * 5000}\nNET: 3", "line 2: NET is a section"),
        ("LR: 1\nNET: {EMA: &x {USE: *x}}\n", "line 2: NET.EMA.USE holds itself"),
        ("- 1\n", "holds no settings; must be lines of the form KEY: VALUE"),
        (
            "DATASET:\n  NO_PREFECHTER: True\nAUGMENTATION:\n  MIXUP: 0.2\n",
            "line 4: AUGMENTATION.MIXUP mixes what the prefetcher reads; DATASET.NO_PREFECHTER must be False",
        ),
        (
            "INPUT_ARCH: [[0]]\nNET:\n  SELECTION: 42\n",
            "line 1: NET.INPUT_ARCH is given, but NET.SELECTION is 42",
        ),
    ],
)
def test_mistake_in_a_file(text, says, write):
    with pytest.raises(ConfigError) as error:
        load_config(write(text))
    assert says in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + len(str(error.value).partition(" ")[0])
    assert str(error.value).count("settings.yaml") >= 1


def test_aliases_stand_for_their_values(write):
    text = "LR: &rate 0.5\nMIN_LR: *rate\nLR_NOISE: &shares [0.4, 0.9]\nDATASET: {SCALE: *shares}\n"
    cfg = load_config(write(text))
    assert (cfg.LR, cfg.MIN_LR, cfg.LR_NOISE, cfg.DATASET.SCALE) == (0.5, 0.5, (0.4, 0.9), (0.4, 0.9))


def test_a_space_of_aliases_without_end_is_refused(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(f"stages: {UNFOLDING}")
    with pytest.raises(ConfigError, match=r"space.yaml: its aliases \(\*NAME\) unfold to more than 100000 values"):
        load_config(None, [f"SUPERNET.SPACE={path}"])


@pytest.mark.parametrize("section", ["", *sorted(SECTIONS - {"OPTIMIZER"})])
def test_every_key_explains_itself(section):
    for name in siblings(section):
        known = KEYS[name]
        assert known.text.endswith(".") and known.source in ("official", "NNI", "ours") and known.jobs, name
        official = name in FACTS["config_defaults"]
        assert official == (known.source == "official") or name in ("ACC_GAP", "NET.INPUT_ARCH"), name


def test_the_page_of_settings_is_that_of_the_schema():
    done = subprocess.run([sys.executable, ROOT / "docs" / "make_settings.py", "--check"], timeout=60)
    assert done.returncode == 0, "python docs/make_settings.py writes it"
    page = (ROOT / "docs" / "settings.md").read_text()
    assert [name for name in (*KEYS, *INERT, *ALIASES) if f"`{name}`" not in page] == []


def test_empty_file_and_empty_section_keep_the_defaults(write):
    assert load_config(write("")) == Config()
    assert load_config(write("NET:\nLR: 0.01\n")) == Config()


def test_files_of_settings_lie_beside_the_file_that_names_them_too(tmp_path, monkeypatch, write):
    path = write("RETRAIN_CFG: recipe.yaml\n")
    assert load_config(path).RETRAIN_CFG == "recipe.yaml"  # which is nowhere, as will be said
    (path.parent / "recipe.yaml").write_text("LR: 0.5\n")
    beside = load_config(path).RETRAIN_CFG
    assert beside == str(path.parent / "recipe.yaml")
    assert load_config(path, ["RETRAIN_CFG=recipe.yaml"]).RETRAIN_CFG == "recipe.yaml"
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "recipe.yaml").write_text("")
    assert beside == load_config(path).RETRAIN_CFG  # of two files, the one that the author of the YAML file saw
    (path.parent / "recipe.yaml").unlink()
    assert load_config(path).RETRAIN_CFG == "recipe.yaml"


def test_ratios_that_leave_no_channel():
    shuffle = ["SUPERNET.FAMILY=shuffle", "SUPERNET.SHUFFLE.CHANNELS=(18,64)", "SUPERNET.SHUFFLE.DEPTHS=(1,1)"]
    assert load_config(None, [*shuffle, "SUPERNET.SHUFFLE.RATIOS=(0.12,1)"]).SUPERNET.SHUFFLE.RATIOS == (0.12, 1)
    with pytest.raises(ConfigError, match=r"RATIOS=0\.11 leaves no channel .* of 18; must be at least 0\.111"):
        load_config(None, [*shuffle, "SUPERNET.SHUFFLE.RATIOS=(0.11,1)"])


def test_even_sampling_needs_no_probabilities():
    cfg = load_config(None, ["SUPERNET.RESUNIT=True", "SUPERNET.HOW_TO_PROB=even"])
    assert cfg.SUPERNET.RESUNIT is True
