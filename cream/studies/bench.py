"""How well the weights of supernets rank nets whose accuracies after training are known from a file."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cream.space import Arch, format_arch
from cream.studies.correlation import Correlation
from cream.studies.judgement import Bootstrap, Judge, Values, with_interval
from cream.studies.ranking import share_out, write_json
from pimm.utils import atomic_file, write_csv, write_text

JUDGES = {  # name: the columns whose sum ranks nets; there is an estimate where a search has fitted one
    "accuracy": ("prec1",),
    "loss": ("loss",),
    "estimate": ("estimate",),
    "loss and estimate": ("loss", "estimate"),
}
SIGNS = {"prec1": 1, "loss": -1, "estimate": -1}  # more accuracy is better, and less loss
CEILING = "one training"


@dataclass(frozen=True)
class Bench:
    """Nets with known accuracies, and the scores that searches give them.

    Args:
        archs: the nets' paths.
        true: accuracies after training in percent, [nets, trainings].
        mflops: costs of the nets.
        depth: numbers of blocks of the nets.
        scores: by the name of a search, ``loss`` and ``prec1`` of each net with the search's weights, and ``estimate``,
            the loss that the search's fit of the losses of its training gives the net, if it has one.
        limit: the largest cost, in MFLOPs, of the net that is picked.
        bootstrap: the draws of nets and seeds.
    """

    archs: Sequence[Arch]
    true: np.ndarray
    mflops: np.ndarray
    depth: np.ndarray
    scores: Mapping[str, Sequence[Mapping[str, float]]]
    limit: float
    bootstrap: Bootstrap

    def methods(self) -> dict[str, list[str]]:
        """Return the searches of each method; searches whose folders have the same name differ in their seeds."""
        found: dict[str, list[str]] = {}
        for name in self.scores:
            found.setdefault(name.rpartition("/")[2], []).append(name)
        return found

    def judges(self, method: str) -> list[str]:
        """Return the names of the judges for which all searches of a method have the columns."""
        rows = [self.scores[name][0] for name in self.methods()[method]]
        return [by for by, columns in JUDGES.items() if all(column in row for row in rows for column in columns)]

    def score(self, name: str, judge: str) -> np.ndarray:
        """Return the scores of a search by one of its judges, of which more is better.

        Loss and estimate are both losses, and are added up.
        """
        rows = self.scores[name]
        return sum(SIGNS[column] * np.array([row[column] for row in rows]) for column in JUDGES[judge])

    def judgements(self) -> dict[str, Values]:
        """Return the statistics of each method by each judge, of the baselines, and of one training."""
        judge = self._judge(self.true.mean(axis=1))
        found = {}
        for method, names in self.methods().items():
            for by in self.judges(method):
                found[f"{method} by {by}"] = self.bootstrap.over_seeds([judge(self.score(name, by)) for name in names])
        found["MFLOPs"], found["number of blocks"] = judge(self.mflops), judge(self.depth.astype(float))
        trainings = self.true.shape[1]
        if trainings > 1:
            each = [self._judge(np.delete(self.true, k, 1).mean(axis=1))(self.true[:, k]) for k in range(trainings)]
            found[CEILING] = self.bootstrap.over_seeds(each)
        return found

    def differences(self, found: Mapping[str, Values]) -> dict[str, Values]:
        """Return by how much the statistics of the first method exceed those of each other method.

        Two methods are compared by each judge that both have, and each method by its judge with the largest tau. The
        first method by that judge is also compared with each other one by the better of accuracy and loss. The estimate
        of a method is compared with the loss of the same method, too.
        """
        first, *others = self.methods()
        better = {method: better_judge(method, found) for method in self.methods()}
        both = [(other, by) for other in others for by in self.judges(first) if by in self.judges(other)]
        pairs = [(f"{first} by {by}", f"{other} by {by}") for other, by in both]
        pairs += [(better[first], better[other]) for other in others]
        pairs += [(better[first], better_judge(other, found, ("accuracy", "loss"))) for other in others]
        estimated = [method for method in self.methods() if "estimate" in self.judges(method)]
        pairs += [(f"{method} by estimate", f"{method} by loss") for method in estimated]
        return {f"{a} - {b}": {name: found[a][name] - found[b][name] for name in found[a]} for a, b in pairs}

    def agreement(self) -> dict[str, np.ndarray]:
        """Return the mean tau of the scores of two seeds of a method, by each judge."""
        found = {}
        for method, names in self.methods().items():
            pairs = list(itertools.combinations(names, 2))
            for by in self.judges(method) if pairs else ():
                taus = [self._judge(self.score(one, by))(self.score(other, by))["tau"] for one, other in pairs]
                found[f"{method} by {by}"] = np.mean(taus, axis=0)
        return found

    def _judge(self, true: np.ndarray) -> Judge:
        return Judge(true, self.mflops, self.depth, self.limit, self.bootstrap.counts)

    def rows(self) -> list[dict]:
        """Return the table of all nets."""
        return [
            {
                "arch": format_arch(arch),
                "mflops": self.mflops[i],
                "depth": self.depth[i],
                "trained": self.true[i].mean(),
                **{f"{column} {name}": rows[i][column] for name, rows in self.scores.items() for column in rows[i]},
            }
            for i, arch in enumerate(self.archs)
        ]


def better_judge(method: str, found: Mapping[str, Values], judges: Iterable[str] = tuple(JUDGES)) -> str:
    """Return the label of a method, by the one of these judges that has the largest tau."""
    labels = (label for label in (f"{method} by {by}" for by in judges) if label in found)
    return max(labels, key=lambda label: found[label]["tau"][0])


def scores_of(
    output: Path, archs: Sequence[Arch], searches: Mapping[str, tuple[str, Callable[[Sequence[Arch]], list[dict]]]]
) -> dict[str, list[dict]]:
    """Return the scores of all paths by search; scores that are in the output folder are not computed again.

    Args:
        output: the folder.
        archs: the paths.
        searches: for each name of a search a hash of its weights, and the function that scores paths.
    """
    tasks = {
        output / f"inherited-{weights[:12]}.json": lambda score=score: {"scores": score(archs)}
        for weights, score in searches.values()
    }
    return dict(zip(searches, (found["scores"] for found in share_out(tasks))))


def write_bench(output: Path, bench: Bench) -> str:
    """Write the nets, the statistics and a picture, and return the text of the statistics.

    The files are ``ranking.csv``, ``judgement.json``, ``judgement.md`` and ``ranking.png``. Statistics come with 95%
    intervals of the bootstrap.
    """
    found = bench.judgements()
    tables = {
        "statistics": {label: _intervals(values) for label, values in found.items()},
        "differences": {label: _intervals(values) for label, values in bench.differences(found).items()},
        "seed against seed": {label: {"tau": with_interval(values)} for label, values in bench.agreement().items()},
    }
    inherited = {name: float(bench.score(name, "accuracy").mean()) for name in bench.scores}
    write_csv(output / "ranking.csv", bench.rows())
    plain = {
        title: {label: {name: one.as_json() for name, one in each.items()} for label, each in table.items()}
        for title, table in tables.items()
    }
    facts = {"nets": len(bench.archs), "limit_mflops": bench.limit if np.isfinite(bench.limit) else None}
    write_json(output / "judgement.json", {**facts, "mean inherited top-1": inherited, **plain})
    text = "\n".join(
        [
            f"{len(bench.archs)} nets; the pick costs at most {bench.limit:g} MFLOPs; 95% intervals\n",
            *(f"mean inherited top-1 of {name}: {value:.2f}%" for name, value in inherited.items()),
            *(f"\n{_markdown(title, table)}" for title, table in tables.items() if table),
        ]
    )
    write_text(output / "judgement.md", f"{text}\n")
    plot(output / "ranking.png", bench, tables["statistics"])
    return text


def _intervals(values: Values) -> dict[str, Correlation]:
    return {name: with_interval(each) for name, each in values.items()}


def _markdown(title: str, table: Mapping[str, Mapping[str, Correlation]]) -> str:
    """Return a table with a row for each label and a column for each statistic."""
    names = list(next(iter(table.values())))
    rows = [[label, *(_cell(each[name]) for name in names)] for label, each in table.items()]
    lines = [[title, *names], ["---"] * (len(names) + 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(one: Correlation) -> str:
    digits = 3 if abs(one.value) <= 1 else 2
    return f"{one.value:.{digits}f} [{one.low:.{digits}f}, {one.high:.{digits}f}]"


def plot(path: Path, bench: Bench, table: Mapping[str, Mapping[str, Correlation]]) -> None:
    """Draw tau with its interval for all scores, and for each method the accuracies against the first seed's losses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second to import
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # matplotlib logs the fonts that it finds
    methods = bench.methods()
    labels = list(table)[::-1]
    figure = Figure(figsize=(5 + 4 * len(methods), max(4.2, 0.27 * len(labels))), layout="constrained")
    FigureCanvasAgg(figure)
    first, *panels = figure.subplots(1, 1 + len(methods))
    for name, shift, marker in (("tau", 0.12, "o"), ("tau in depth", -0.12, "s")):
        values = [table[label][name] for label in labels]
        errors = np.abs([[one.value - one.low, one.high - one.value] for one in values]).T
        places = np.arange(len(labels)) + shift
        first.errorbar([one.value for one in values], places, xerr=errors, fmt=marker, markersize=4, label=name)
    first.set_yticks(range(len(labels)), labels)
    first.grid(axis="x", alpha=0.3)
    first.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    for panel, (method, names) in zip(panels, methods.items()):
        points = panel.scatter(-bench.score(names[0], "loss"), bench.true.mean(axis=1), c=bench.depth, s=8)
        panel.invert_xaxis()
        panel.set_title(method)
        panel.set_xlabel("loss with inherited weights")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("top-1 % trained from scratch")
    figure.colorbar(points, ax=panels, label="number of blocks")
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
