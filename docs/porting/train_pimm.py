"""Train a small net on the embedded images: ``train_pimm.py [--data DIR] [--output DIR] [--epochs N]``."""

import argparse
import os

import paddle
from pimm.data import create_dataset, create_loader, resolve_model_data_config
from pimm.loss import LabelSmoothingCrossEntropy
from pimm.models import create_model
from pimm.optim import create_optimizer_v2, optimizer_kwargs
from pimm.scheduler import create_scheduler_v2, scheduler_kwargs
from pimm.utils import (
    AverageMeter,
    CheckpointSaver,
    ModelEmaV3,
    accuracy,
    dispatch_clip_grad,
    random_seed,
    update_summary,
)

parser = argparse.ArgumentParser()
parser.add_argument("--data", default="data/fashion_mnist")
parser.add_argument("--output", default="output/porting")
parser.add_argument("--model", default="mobilenetv3_small_075")
parser.add_argument("--batch-size", type=int, default=50)
parser.add_argument("--opt", default="adamw")
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--momentum", type=float, default=0.9)
parser.add_argument("--weight-decay", type=float, default=0.05)
parser.add_argument("--clip-grad", type=float, default=5.0)
parser.add_argument("--sched", default="cosine")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--warmup-epochs", type=int, default=1)
parser.add_argument("--seed", type=int, default=42)


def train_epoch(epoch, model, loader, loss_fn, optimizer, scheduler, model_ema, args):
    model.train()
    losses = AverageMeter()
    updates = epoch * len(loader)
    for images, labels in loader:
        loss = loss_fn(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        dispatch_clip_grad(model.parameters(), args.clip_grad)
        optimizer.step()
        updates += 1
        model_ema.update(model, step=updates)
        scheduler.step_update(updates)
        losses.update(loss.item(), len(labels))
    return {"loss": losses.avg}


@paddle.no_grad()
def validate(model, loader, loss_fn):
    model.eval()
    losses, top1 = AverageMeter(), AverageMeter()
    for images, labels in loader:
        logits = model(images)
        losses.update(loss_fn(logits, labels).item(), len(labels))
        top1.update(accuracy(logits, labels, topk=(1,))[0].item(), len(labels))
    return {"loss": losses.avg, "top1": top1.avg}


def main(argv=None):
    args = parser.parse_args(argv)
    random_seed(args.seed)
    device = paddle.CPUPlace()
    model = create_model(args.model, num_classes=10).to(device)
    model_ema = ModelEmaV3(model, decay=0.95, use_warmup=True)
    config = resolve_model_data_config(model, {"img_size": 32, "crop_pct": 1.0})

    images = {"input_size": config["input_size"], "mean": config["mean"], "std": config["std"], "device": device}
    images.update(batch_size=args.batch_size, num_workers=1, persistent_workers=False)
    train_set = create_dataset("", root=os.path.join(args.data, "train.tar"))
    train_loader = create_loader(train_set, is_training=True, scale=(0.7, 1.0), color_jitter=0.0, **images)
    eval_set = create_dataset("", root=os.path.join(args.data, "val.tar"))
    eval_loader = create_loader(eval_set, crop_pct=config["crop_pct"], **images)

    optimizer = create_optimizer_v2(model, **optimizer_kwargs(args))
    scheduler, epochs = create_scheduler_v2(optimizer, **scheduler_kwargs(args), updates_per_epoch=len(train_loader))
    os.makedirs(args.output, exist_ok=True)
    saver = CheckpointSaver(model, optimizer, args=args, model_ema=model_ema, checkpoint_dir=args.output)
    train_loss, eval_loss = LabelSmoothingCrossEntropy(smoothing=0.1), paddle.nn.CrossEntropyLoss()
    for epoch in range(epochs):
        train_metrics = train_epoch(epoch, model, train_loader, train_loss, optimizer, scheduler, model_ema, args)
        eval_metrics = validate(model_ema, eval_loader, eval_loss)
        print(epoch, train_metrics, eval_metrics)
        summary = os.path.join(args.output, "summary.csv")
        update_summary(epoch, train_metrics, eval_metrics, summary, write_header=epoch == 0)
        saver.save_checkpoint(epoch, metric=eval_metrics["top1"])
        scheduler.step(epoch + 1)
    return eval_metrics


if __name__ == "__main__":
    main()
