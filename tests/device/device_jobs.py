"""Run by tests in a process of its own: jobs on a device in short form; writes their numbers, as JSON.

Usage: device_jobs.py DEVICE FOLDER PART ... [KEY=VALUE ...]; the parts are the methods of `Jobs`, in an order in which
each finds the files of those before it.
"""

import contextlib
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import paddle
import waits
from paddle import nn
from recording import bits, counts, recorded, saved, total
from tables import rows_of
from tiny import RECIPE, run_search, without_report, write_images

import cream
from cream.config.load import load_config
from cream.convert import main as convert
from cream.deploy import command as deploy
from cream.flops import cost_tables
from cream.jobs import evolve, rank_correlation, retrain, select, test
from cream.train.steps import CreamStep, SinglePathStep
from pimm import device
from pimm.commands.inference import main as inference
from pimm.commands.train import main as train
from pimm.commands.validate import main as validate
from pimm.engine import ClassifyStep
from pimm.utils import barrier, latest_checkpoint, load_arrays, rank

API_PAGE = Path(__file__).parents[2] / "docs/api.md"
CREAM = (
    *("EPOCHS=2", "SUPERNET.METHOD=cream", "SUPERNET.META_STA_EPOCH=0", "SUPERNET.UPDATE_ITER=2"),
    *("SUPERNET.POOL_SIZE=2", "SUPERNET.SLICE=2"),
)
NET = ("--model", "mobilenetv3_small_075", "--num-classes", "3", "--img-size", "32")
EVOLUTION = [f"EVOLUTION.{key}" for key in ("POPULATION=4", "TOP=2", "CROSSOVER=1", "MUTATION=1", "GENERATIONS=2")]


class Jobs:
    """Runs jobs on a device and collects their numbers.

    Args:
        name: the device.
        folder: where the jobs write, and find the images.
        options: further settings of searches and retrainings.
    """

    def __init__(self, name, folder, options):
        self.name, self.folder, self.data = name, folder, folder / "data"
        self.options = (f"DEVICE={name}", *options)
        self.numbers = {"steps": {}, "device": str(device.choose(name, "DEVICE"))}

    def searches(self):
        for name, more in {"single path": (), "cream": CREAM}.items():
            path = self.folder / name.replace(" ", "_")
            with recorded(SinglePathStep, CreamStep) as self.numbers["steps"][name]:
                run_search(self.data, path, *self.options, *more)
            barrier()  # the first process writes the files
            found = json.loads((path / "search" / "architecture.json").read_text())
            self.numbers[f"{name} architecture"] = found["arch"]
            self.numbers[f"{name} state"] = saved(path / "search")

    def selections(self):
        search = self.folder / "cream" / "search"
        with without_report():
            for name, job, more in (("select", select, ["SUPERNET.SELECT_RANDOM=5"]), ("evolve", evolve, EVOLUTION)):
                best = job(search, [*self.options, *more], self.folder / name)
                self.numbers[f"{name} architecture"] = best.arch
                rows = rows_of(self.folder / name / "candidates.csv")
                self.numbers[f"{name} scores"] = {row["arch"]: float(row["loss"]) for row in rows}

    def ranking(self):
        searches = [self.folder / name / "search" for name in ("single_path", "cream")]
        recipe = load_config(None, [*RECIPE, *self.options])
        found = rank_correlation(searches, recipe, self.folder / "ranking", n=3)
        self.numbers["ranking rows"] = rows_of(self.folder / "ranking" / "ranking.csv")
        self.numbers["ranking"] = {name: list(coefficients) for name, coefficients in found.items()}

    def retraining(self):
        recipe = self.folder / "single_path" / "search" / "retrain.yaml"
        places = (f"DATA_DIR={self.data}", f"SAVE_PATH={self.folder}", "NET.EMA.USE=True", "NET.EMA.DECAY=0.5")
        options = (*RECIPE, *places, *self.options)
        with recorded(ClassifyStep) as self.numbers["steps"]["classify"]:
            retrain(load_config(recipe, [*options, "MODEL=retrain"]))
        barrier()
        self.numbers["retrain state"] = saved(self.folder / "retrain")
        weights = f"RESUME_PATH={latest_checkpoint(self.folder / 'retrain')}"
        self.numbers["test"] = test(load_config(recipe, [*options, weights, "MODEL=test"]))

    def resuming(self):
        """Resume the retraining from its first checkpoint, here and on the CPU, and that of the CPU here."""
        whole, elsewhere = self.folder / "retrain", self.folder / "on the CPU" / "retrain"
        self.numbers["retrain bits"] = bits(whole)
        resumed = {
            "here": (self.name, whole),
            "on the CPU": ("cpu", whole),
            "here from the CPU": (self.name, elsewhere),
        }
        for how, (place, source) in resumed.items():
            first = min(source.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
            path = self.folder / how
            options = (f"DATA_DIR={self.data}", f"SAVE_PATH={path}", f"RESUME_PATH={first}", f"DEVICE={place}")
            retrain(load_config(whole / "config.yaml", options))
            self.numbers[f"resumed {how}"] = [bits(path / "retrain"), saved(path / "retrain")]

    def mixed_precision(self):
        """Search and train in float16 where the device has it; a CPU computes in float32."""
        run_search(self.data, self.folder / "mixed", *self.options, *CREAM, "AMP=True")
        self.numbers["mixed cream state"] = saved(self.folder / "mixed" / "search")
        options = ("--amp", "--opt", "momentum", "--clip-grad", "1", "--model-ema", "--epochs", "3")
        for level in ("O1", "O2"):
            self._train(level, *options, "--amp-level", level)
        self.numbers["O2 bits"] = bits(self.folder / "O2")
        self._validate("O2/checkpoint-2", "--amp")
        self._train("O2 resumed", *options, "--amp-level", "O2", "--resume", str(self.folder / "O2" / "checkpoint-0"))
        self.numbers["resumed O2 bits"] = bits(self.folder / "O2 resumed")

    def scripts(self):
        options = ("--opt", "rmsproptf", "--mixup", "0.2", "--clip-grad", "1", "--grad-accum-steps", "2")
        self._train("script", *options, "--epochs", "1", "--model-ema", "--sync-bn")
        places = self._places()
        checkpoint = ["--checkpoint", str(self.folder / "script"), "--use-ema"]
        self._validate("script", "--use-ema")
        results = ["--results-dir", str(self.folder), "--results-file", "classes", "--results-format", "json"]
        inference([*places, *checkpoint, *results, "--split", "val", "--topk", "2", "--include-index", "--fullname"])
        barrier()
        self.numbers["inference"] = list(json.loads((self.folder / "classes.json").read_text()).values())

    def _places(self):
        return ["--data-dir", str(self.data), "--device", self.name, "-j", "0", "-b", "6"]

    def _train(self, name, *options):
        output = ["--output", str(self.folder), "--experiment", name, "--lr", "0.01", "--cooldown-epochs", "0"]
        train([*self._places(), *NET, *output, *options])
        self.numbers[f"{name} state"] = saved(self.folder / name)

    def _validate(self, name, *options):
        results = self.folder / f"{name}.json"
        checkpoint = ["--checkpoint", str(self.folder / name), "--results-file", str(results)]
        validate([*self._places(), *checkpoint, *options])
        barrier()
        self.numbers[f"{name} validated"] = json.loads(results.read_text())[-1]

    def conversion(self):
        """Convert weights to PyTorch's and back, and classify an image by them."""
        weights = latest_checkpoint(self.folder / "retrain") / "model.pdparams"
        there, back = self.folder / "weights.pth.tar", self.folder / "weights.pdparams"
        recipe = ["--model", str(self.folder / "single_path" / "search" / "retrain.yaml")]
        image = str(next((self.data / "val" / "light").iterdir()))
        assert convert([str(weights), str(there), "--to-torch", *recipe]) == 0
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert convert([str(there), str(back), *recipe, "--verify", image]) == 0
        self.numbers["converted is whole"] = _same(load_arrays(weights), load_arrays(back))
        self.numbers["converted says"] = printed.getvalue().splitlines()[-3:]

    def exporting(self):
        """Export the retrained net, and classify images by the export and by the net."""
        source, exported = str(self.folder / "retrain"), str(self.folder / "export")
        assert deploy.export([source, "--output", exported]) == 0
        for name, classifier in {"net": source, "export": exported}.items():
            before, results = counts()["kernels"], self.folder / f"{name}.json"
            assert deploy.predict([classifier, str(self.data / "val"), "--output", str(results)]) == 0
            self.numbers[f"{name} classifies"] = json.loads(results.read_text())
            self.numbers[f"kernels of the {name}"] = counts()["kernels"] - before

    def waits(self):
        """Count the waits of steps and evaluations, and train in mixed precision."""
        self.numbers["waits"] = {"steps": waits.of_steps(), "evaluations": waits.of_evaluations()}
        self.numbers["averages"] = waits.of_averages()
        self.numbers["mixed precision"] = waits.of_mixed_precision()

    def notebook(self):
        """Run the searches of docs/api.md, with batches in place of loaders."""
        page = {}
        exec(re.findall(r"```python\n(.*?)```", API_PAGE.read_text(), re.DOTALL)[0], page)
        rng = np.random.default_rng(0)
        batches = [(rng.normal(size=(6, 3, 8, 8)).astype("float32"), rng.integers(0, 5, 6)) for _ in range(3)]
        batches = [tuple(map(paddle.to_tensor, batch)) for batch in batches]
        for name in ("Cream", "SPOS"):
            paddle.seed(0)
            net = page["MyNet"](5)
            mutator = getattr(cream, f"{name}SupernetTrainingMutator")(net)
            optimizer = paddle.optimizer.Momentum(0.1, parameters=net.parameters())
            options = {"resolution": 8, "meta_sta_epoch": 0, "update_iter": 2, "slices": 2, "pool_size": 2}
            options = {**options, "select_batches": 2} if name == "Cream" else {}
            trainer = getattr(cream, f"{name}SupernetTrainer")(
                net, nn.CrossEntropyLoss(), None, optimizer, 2, batches, batches, mutator, **options
            )
            self.numbers[f"{name} validated"] = trainer.train()
            weights = {key: value.numpy() for key, value in net.state_dict().items()}
            self.numbers[f"{name} weights"] = total(weights)
        sizes = {"max_epochs": 2, "num_select": 2, "num_population": 4, "num_crossover": 1, "num_mutation": 2}
        evolution = cream.SPOSEvolution(**sizes, flops_func=cost_tables(net, 8)[0])
        found = evolution.search(net, batches, batches, select_batches=1)
        self.numbers["SPOS evolution"] = [[each.arch, each.prec1, each.mflops] for each in found]


def _same(arrays, others):
    return arrays.keys() == others.keys() and all(np.array_equal(arrays[name], others[name]) for name in arrays)


def main(name, folder, *words):
    folder = Path(folder)
    if rank() == 0 and not (folder / "data").exists():
        write_images(folder / "data")
    jobs = Jobs(name, folder, [word for word in words if "=" in word])
    for part in words:
        if "=" not in part:
            getattr(jobs, part)()
    jobs.numbers["counts"] = counts()
    (folder / f"numbers{rank()}.json").write_text(json.dumps(jobs.numbers))


if __name__ == "__main__":
    main(*sys.argv[1:])
