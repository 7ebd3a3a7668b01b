"""How often an evaluation waits for the device: as often for many batches as for few."""

import pytest
from device_library import run

COUNT = """
import paddle
from recording import counts
from functools import partial
from types import SimpleNamespace
from paddle import nn
net = nn.Sequential(nn.Conv2D(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(8, 4))
net.eval()
images, labels = paddle.randn([6, 3, 8, 8]), paddle.to_tensor([0, 1, 2, 3, 0, 1])

def waits(evaluate, batches):
    before = counts()
    evaluate([(images, labels)] * batches)
    return [counts()[name] - before[name] for name in ("copies_in", "copies_out", "waits")]
"""
CHECK = """
waits(job, 2)
few, many = waits(job, 2), waits(job, 12)
assert few == many, (few, many)
assert few[1] <= 3, few
"""
EVALUATIONS = {
    "evaluate": """
from pimm.engine.evaluation import evaluate
job = partial(evaluate, net)
""",
    "metrics of the user": """
from cream.nni.trainer import SPOSSupernetTrainer
from pimm.utils import accuracy
trainer = object.__new__(SPOSSupernetTrainer)
class Supernet(nn.Layer):
    def forward(self, images, arch):
        return net(images)
trainer.model, trainer.loss = Supernet(), nn.CrossEntropyLoss()
trainer.metrics = lambda logits, labels: {"mine": accuracy(logits, labels)[0]}
def job(batches):
    trainer.valid_loader = batches
    found = trainer.validate_path(())
    assert abs(found["mine"] - found["prec1"]) < 1e-4, found
""",
    "pimm-inference": """
from pimm.commands.inference import predictions
from itertools import islice
args = SimpleNamespace(amp=False, amp_dtype="float16", tta=0, output_type="prob", topk=2, log_interval=50)
def job(batches):
    with paddle.no_grad():
        assert len(list(predictions(args, net, batches, 2))) == len(batches)
""",
}


@pytest.mark.parametrize("evaluation", EVALUATIONS.values(), ids=EVALUATIONS)
def test_batches_do_not_wait(library, in_full, evaluation):
    outcome = run(library, f"{COUNT}{evaluation}{CHECK}")
    assert outcome.returncode == 0, outcome.stderr[-3000:]
