"""Command lines with defaults in a file: values as the command line would have them, and one line for a mistake."""

import pytest

from pimm.cli import Parser, at_least, launched_as, share
from pimm.errors import ConfigError


def make_parser():
    parser = Parser()
    parser.add_argument("data", nargs="?")
    parser.add_argument("--model", default="resnet")
    parser.add_argument("--experiment", default="")
    parser.add_argument("--aa")
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--pair", nargs=2)
    parser.add_argument("--opt", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--epochs", type=at_least(1), default=3)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--drop", type=share, default=0.0)
    parser.add_argument("--mean", type=float, nargs="+")
    parser.add_argument("--amp", action="store_true")
    return parser


@pytest.fixture
def parse(tmp_path):
    def parse(text, *arguments):
        path = tmp_path / "args.yaml"
        path.write_text(text, encoding="utf-8")
        return make_parser().parse_args(["-c", str(path), *arguments])

    return parse


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("experiment: 2024", "experiment", "2024"),
        ("experiment: 2024-01-02", "experiment", "2024-01-02"),
        ("experiment: 1e3", "experiment", "1e3"),
        ("experiment: 0x1F", "experiment", "0x1F"),
        ("aa: yes", "aa", "yes"),
        ("aa: null", "aa", None),
        ("model: 5", "model", "5"),
        ("data: 7", "data", "7"),
        ("names: [1, yes, a]", "names", ["1", "yes", "a"]),
        ("names: 1", "names", ["1"]),
        ("pair: [1, 2]", "pair", ["1", "2"]),
        ("opt: adam", "opt", "adam"),
        ("epochs: 7", "epochs", 7),
        ("lr: 1e-3", "lr", 1e-3),
        ("lr: .inf", "lr", float("inf")),
        ("mean: [0.5, 1]", "mean", [0.5, 1.0]),
        ("amp: true", "amp", True),
        ("amp: no", "amp", False),
        ("names: &all [a, b]\nmodel: &net x\nexperiment: *net", "experiment", "x"),
        ("", "epochs", 3),
    ],
)
def test_values_of_a_file(parse, text, name, value):
    if not text:
        text = "epochs: 3"
    found = getattr(parse(text), name)
    assert found == value and type(found) is type(value)


def test_the_command_line_replaces_the_file(parse):
    args = parse("epochs: 7\nmodel: a", "images", "--model", "b")
    assert (args.data, args.model, args.epochs) == ("images", "b", 7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("opt: [sgd]", "opt is ['sgd']; it takes 1 value, and no list"),
        ("opt: {a: 1}", "opt holds a list or a section where a value must be"),
        ("opt: sdg", "opt is 'sdg'; it can be 'sgd', 'adam'"),
        ("opt: [[1]]", "opt holds a list or a section where a value must be"),
        ("model: [a, b]", "model is ['a', 'b']; it takes 1 value, and no list"),
        ("pair: [1, 2, 3]", "pair is [1, 2, 3]; it takes 2 values"),
        ("pair: 1", "pair is 1; it takes 2 values"),
        ("names: [[a]]", "names holds a list or a section where a value must be"),
        ("epochs: 0", "epochs is 0: it is at least 1, not 0"),
        ("epochs: many", "epochs is 'many': it is a whole number, not 'many'"),
        ("epochs: " + "9" * 5000, "epochs cannot be read"),
        ("lr: true", "lr is True"),
        ("lr: " + "x" * 5000, "lr is 'xxx"),
        ("mean: [0.5, null]", "mean is [0.5, None]"),
        ("amp: 'False'", "amp is 'False'; it can be true and false"),
        ("amp: [true]", "amp is [True]; it can be true and false"),
        ("drop: !!int ''", "drop cannot be read"),
        ("epochss: 3", "there is no option epochss; did you mean epochs?"),
        ("x" * 900 + ": 3", "there is no option xxx"),
        ("? [a]\n: 3", "there is no option"),
        ("- 1", "does not hold options and their values"),
        ("", "does not hold options and their values"),
        ("names: [", "args.yaml, line 1: not valid YAML"),
        ("names: " + "[" * 9999, "not valid YAML"),
        ("names: &a [*a]", "names"),
        (
            f"names: [&a0 [0, 0], {', '.join(f'&a{n + 1} [*a{n}, *a{n}]' for n in range(40))}]",
            "its aliases (*NAME) unfold to more than 100000 values",
        ),
        ("aa: 1 #" + "x" * 2**18, "is larger than 256 kB"),
    ],
)
def test_mistakes_in_a_file(parse, text, says):
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert says in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--epoch-s", "1"], "there is no option --epoch-s; did you mean --epochs?"),
        (["--" + "x" * 5000], "there is no option --xxx"),
        (["--opt", "x" * 5000], "argument --opt: invalid choice: 'xxx"),
        (["--epochs", "0"], "argument --epochs: it is at least 1, not 0"),
        (["--epochs", "five"], "argument --epochs: it is a whole number, not 'five'"),
        (["a", "b"], "there is no option b"),
        (["--conf", "x"], "--config is written out, or -c"),
    ],
)
def test_mistakes_on_the_command_line(arguments, says, capsys):
    with pytest.raises(SystemExit) as end:
        make_parser().parse_args(arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and error.count("\n") == 1 and len(error) < 400


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, (0, 1)),
        ({"PADDLE_TRAINER_ID": "5"}, (0, 1)),  # left over, without a launch
        ({"PADDLE_TRAINER_ID": "5", "PADDLE_TRAINERS_NUM": "1"}, (0, 1)),
        ({"PADDLE_TRAINER_ID": "5", "PADDLE_TRAINERS_NUM": "8"}, (5, 8)),
        ({"PADDLE_TRAINER_ID": "z", "PADDLE_TRAINERS_NUM": "8"}, (0, 8)),
    ],
)
def test_a_rank_counts_in_a_launch_alone(monkeypatch, environment, expected):
    for name in ("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_as() == expected
