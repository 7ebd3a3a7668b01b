"""How the cost of a step grows: the jobs of benchmarks/run.py that yield curves, and their picture."""

import os

from measuring import Figure, figures_of, images_per_second, in_turns

PANELS = {  # the job: what its axis shows
    "growth: batch": "images of a step",
    "growth: side": "side of the images, pixels",
    "growth: depth": "largest number of searched blocks",
    "growth: board": "entries of the board",
    "growth: processes": "processes",
}
BATCHES, SIDES, BOARDS = (8, 16, 32, 64, 128), (64, 96, 128, 160, 224), (0, 1, 2, 5, 10)
RANGES = ((0, 50), (0, 200), (0, 400), (0, 600))  # MFLOPs of Cream's spaces


def batches(options):
    """Yield the images per second of Cream-14 at 64 pixels for growing batches."""
    import gpu

    for batch in BATCHES[:2] if options.small else BATCHES:
        yield from curve(options, gpu, "cream_14", batch, 64, batch, len(BATCHES))


def sides(options):
    """Yield the images per second of Cream-287, in batches of 8, for growing images."""
    import gpu

    batch = 1 if options.small else 8
    for side in SIDES[:2] if options.small else SIDES:
        yield from curve(options, gpu, "cream_287", batch, side, side, len(SIDES))


def curve(options, gpu, name, batch, side, at, places):
    """Yield the two figures of one place: training and evaluation."""
    makers = {"train": gpu.training, "evaluate": gpu.evaluation}
    runners = {kind: images_per_second(make(name, False, batch, side), batch) for kind, make in makers.items()}
    turns = in_turns(runners, options.seconds / places)
    yield from figures_of(name, {f"here, {kind}": values for kind, values in turns.items()}, at=at)


def depths(options):
    """Yield the images per second of plain supernet steps for spaces of growing depth."""
    import distillation
    from run_jobs import steps_that_fit

    batch = 4 if options.small else 32
    for flops_range in RANGES[:1] if options.small else RANGES:
        step = distillation.make_step(flops_range)
        step.board.size = 1  # its one path teaches in the other kind of step, which is not shown
        steps = steps_that_fit(step, batch, options.seconds / len(RANGES))
        seconds = distillation.measure(step, batch, steps)["plain"]
        blocks = sum(len(stage) for stage in step.net.space.positions[1:-1])
        yield Figure("supernet step at 64", "here, plain", batch / seconds, "images/s", blocks)


def boards(options):
    """Yield the images per second of supernet steps whose board has a growing number of entries."""
    import distillation
    from run_jobs import steps_that_fit

    batch = 4 if options.small else 32
    for size in BOARDS[:2] if options.small else BOARDS:
        step = distillation.make_step((0, 60) if options.small else (0, 600))
        step.board.size = max(1, size)
        steps = steps_that_fit(step, batch, options.seconds / len(BOARDS))
        seconds = distillation.measure(step, batch, steps)["distillation" if size else "plain"]
        yield Figure("supernet step at 64", "here, with a teacher", batch / seconds, "images/s", size)


def processes(options):
    """Yield the images per second of one and of two processes that train paths of a supernet, on all cores together."""
    from run_jobs import reduced

    batch = 4 if options.small else 32
    for count in (1, 2):
        steps = 1 if options.small else max(2, int(options.seconds / 12))
        ((_, _, seconds), *_) = reduced(count, batch, steps)
        yield Figure("supernet step at 64", "here, path's gradients", count * batch / seconds, "images/s", count)


def draw(figures, path):
    """Draw the curves, a panel for each job; without matplotlib, say so and draw nothing.

    Args:
        figures: the figures of each job.
        path: of the SVG file.
    """
    try:
        import matplotlib
    except ImportError:
        print("no picture: matplotlib does not import")
        return
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    shown = {job: label for job, label in PANELS.items() if figures.get(job)}
    if not shown:
        return
    figure, panels = plt.subplots(1, len(shown), figsize=(3.4 * len(shown), 3.6), layout="constrained", squeeze=False)
    for panel, (job, label) in zip(panels[0], shown.items()):
        for by in dict.fromkeys(each.by for each in figures[job]):
            points = sorted((each.at, each.value) for each in figures[job] if each.by == by)
            panel.plot(*zip(*points), "o-", label=by.removeprefix("here, "))
        places = sorted({each.at for each in figures[job]})
        top = 1.05 * max(each.value for each in figures[job])
        panel.set(title=figures[job][0].what, xlabel=label, ylim=(0, top), xticks=places)
        panel.legend()
    panels[0][0].set_ylabel("images per second")
    scratch = path.with_suffix(".part.svg")
    figure.savefig(scratch)
    plt.close(figure)
    os.replace(scratch, path)
