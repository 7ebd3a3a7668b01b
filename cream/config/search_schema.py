"""The settings of a search: space, supernet, selection of a path, and evolution."""

from dataclasses import dataclass
from typing import Optional

from cream.config.bounds import (
    ABOVE_ZERO,
    ABOVE_ZERO_EACH,
    ALL,
    AUGMENTED,
    BELOW_ONE,
    BLOCK_COUNTS,
    CHOICES,
    COUNT,
    COUNT_OR_NONE,
    DEPTHS,
    FITTED,
    OURS,
    PIXELS,
    POSITIVE_SHARE,
    SPACES,
    SUPERNETS,
    WEIGHTS,
    WIDENING,
)
from cream.fields import ANYTHING, Nested, Numbers, at_least, between, key, one_of, section


@dataclass
class Shuffle:
    """SPOS's space of ShuffleNetV2 blocks, where SUPERNET.FAMILY is shuffle."""

    DEPTHS: tuple[int, ...] = key((4, 4, 8, 4), BLOCK_COUNTS, "Number of blocks of each stage.", source=OURS, jobs=ALL)
    CHANNELS: tuple[int, ...] = key((64, 160, 320, 640), WIDENING, "Channels of each stage.", source=OURS, jobs=ALL)
    RATIOS: Numbers = key(
        (1.0,),
        ABOVE_ZERO_EACH,
        "Channels inside a block as shares of half the stage's; several make the width a choice (SPOS's paper has "
        "0.2, 0.4, ... 2.0).",
        source=OURS,
        jobs=ALL,
    )


@dataclass
class Supernet:
    """The search: its space, how the supernet is trained, and how a path is selected in the end."""

    FAMILY: str = key(
        "mobile",
        one_of("mobile", "shuffle"),
        "Nets to search: Cream's MobileNet blocks, or SPOS's ShuffleNetV2 blocks.",
        source=OURS,
        jobs=ALL,
    )
    SHUFFLE: Shuffle = section(Shuffle)
    FLOPS_MINIMUM: float = key(
        0.0, at_least(0), "Least cost of a path that is drawn or selected.", unit="MFLOPs", jobs=FITTED
    )
    FLOPS_MAXIMUM: float = key(
        600.0,
        ABOVE_ZERO,
        "Largest cost of a path that is drawn or selected; both bounds together imply the depth of Cream's space and "
        "the size of its images.",
        unit="MFLOPs",
        jobs=FITTED,
    )
    FLOPS_BINS: int = key(
        1,
        at_least(1, 10**6),
        "Number of equal parts of the FLOPs range; each draw for training picks a part, then a path in the part.",
        source=OURS,
        jobs=SPACES,
    )
    RESOLUTION: Optional[int] = key(
        None,
        PIXELS,
        "Width and height of the images in a search, in place of the size that the FLOPs range implies.",
        unit="pixels",
        source=OURS,
        jobs=FITTED,
    )
    STAGE_DEPTHS: Optional[tuple[int, ...]] = key(
        None,
        DEPTHS,
        "Blocks of the five searched stages, in place of the depths that the FLOPs range implies.",
        source=OURS,
        jobs=FITTED,
    )
    RESUNIT: bool = key(False, ANYTHING, "Add ResNet's bottleneck to the choices.", jobs=ALL)
    DIL_CONV: bool = key(False, ANYTHING, "Add dilated depthwise convolutions to the choices.", jobs=ALL)
    SKIP: bool = key(
        False, ANYTHING, "Add a choice that leaves a block out, where the block keeps the shape.", source=OURS, jobs=ALL
    )
    SPACE: Optional[Nested] = key(
        None,
        ANYTHING,
        "A space of your own in place of Cream's: a YAML file, or the description itself.",
        source=OURS,
        jobs=ALL,
    )
    METHOD: str = key(
        "cream",
        one_of("cream", "single_path", "multi_path"),
        "How the supernet is trained: Cream's board and matching network, SPOS's single paths, or several together.",
        source=OURS,
        jobs=(*SUPERNETS, *CHOICES),
    )
    PATHS: int = key(
        3,
        COUNT,
        "Paths that train on each batch, where METHOD is multi_path; where DRAW is fair, best as many as a block has "
        "choices.",
        unit="paths",
        source=OURS,
        jobs=SUPERNETS,
    )
    DRAW: str = key(
        "even",
        one_of("even", "fair", "sandwich"),
        "How the paths of a batch are drawn, where METHOD is multi_path: independently (even); so that each choice is "
        "drawn equally often, which needs HOW_TO_PROB: even, FLOPS_BINS: 1 and a FLOPs range that holds all paths "
        "(fair); or the most expensive path, which teaches the others, random ones, and the cheapest (sandwich).",
        source=OURS,
        jobs=SUPERNETS,
    )
    ZERO_RESIDUAL: bool = key(
        False,
        ANYTHING,
        "Let blocks with a shortcut begin as the identity: the scale of their last batch norm starts at 0.",
        source=OURS,
        jobs=SUPERNETS,
    )
    ACCUMULATE: int = key(
        1,
        COUNT,
        "Batches whose mean gradient makes one update; they train the same path, whose accuracy on all of them the "
        "board notes.",
        unit="batches",
        source=OURS,
        jobs=SUPERNETS,
    )
    AVERAGE: float = key(
        0.0,
        between(0, 1),
        "Share of an average of the weights that stays at each update of a weight; paths are scored by the averages. "
        "0 keeps none and scores by the last weights.",
        source=OURS,
        jobs=SUPERNETS,
    )
    UPDATES: str = key(
        "mean",
        one_of("mean", "each"),
        "Whether the mean gradient of the paths of a batch makes one update, or each path one of its own, where METHOD "
        "is multi_path.",
        source=OURS,
        jobs=SUPERNETS,
    )
    ESTIMATE: bool = key(
        False,
        ANYTHING,
        "Fit the losses of all batches as a sum over the choices of their paths: an estimate for every path, by which "
        "a selection chooses the best of many random paths before it scores them.",
        source=OURS,
        jobs=SUPERNETS,
    )
    SLICE: int = key(
        4,
        COUNT,
        "Images of each board entry; the matching network learns from twice as many images of a batch.",
        unit="images",
        jobs=SPACES,
    )
    POOL_SIZE: int = key(10, COUNT, "Places on the prioritized board.", unit="paths", jobs=(*SUPERNETS, *CHOICES))
    UPDATE_ITER: int = key(
        1300, COUNT, "Taught updates of paths between two of the matching network.", unit="updates", jobs=SUPERNETS
    )
    META_STA_EPOCH: int = key(
        20,
        COUNT_OR_NONE,
        "Last epoch, counted from 0, in which the board stays empty and no path has a teacher.",
        unit="epochs",
        jobs=SUPERNETS,
    )
    PICK_METHOD: str = key(
        "meta",
        one_of("meta", "top1", "random", "largest"),
        "Who teaches a path: the entry that the matching network prefers, the board's best, any entry, or the most "
        "expensive path of all.",
        jobs=SUPERNETS,
    )
    RHO: float = key(
        0.5,
        between(0, 2),
        "Weight of a teacher that no matching network picked: of sandwich, top1, random and largest.",
        source=OURS,
        jobs=SUPERNETS,
    )
    TEACHING: str = key(
        "mixed",
        one_of("mixed", "added"),
        "Loss of a taught path: (RHO * teacher + (2 - RHO) * labels) / 2 as in the paper (mixed), or labels + RHO / 2 "
        "* teacher (added).",
        source=OURS,
        jobs=SUPERNETS,
    )
    TEMPERATURE: float = key(
        1.0,
        ABOVE_ZERO,
        "Divides the logits of teacher and student before they are compared.",
        source=OURS,
        jobs=SUPERNETS,
    )
    TEACH_ONLY_BETTER: bool = key(
        False,
        ANYTHING,
        "Teach only on batches on which the teacher's own loss is below the student's.",
        source=OURS,
        jobs=SUPERNETS,
    )
    TEACH_SHARE: float = key(
        1.0,
        POSITIVE_SHARE,
        "Share of a batch, its first images, on which a path learns from its teacher.",
        source=OURS,
        jobs=SUPERNETS,
    )
    TAUGHT_SMOOTHING: Optional[float] = key(
        None,
        BELOW_ONE,
        "Label smoothing of a taught path, in place of AUGMENTATION.SMOOTHING: a teacher smooths already.",
        source=OURS,
        jobs=SUPERNETS,
    )
    BOARD_SCORE: str = key(
        "batch",
        one_of("batch", "estimate", "held_out"),
        "What ranks the board: the accuracy of a path on the batch that trained the path, as in the paper (batch); its "
        "loss as a sum over its choices, fitted to all batches, so that entries move and age (estimate); or its loss "
        "on training images that the search does not see, measured again before every epoch (held_out).",
        source=OURS,
        jobs=SUPERNETS,
    )
    FIT_WINDOW: int = key(
        500,
        COUNT,
        "Age at which a batch has 1/e of its weight in the fit of ESTIMATE and of BOARD_SCORE: estimate.",
        unit="batches",
        source=OURS,
        jobs=SUPERNETS,
    )
    HOW_TO_PROB: str = key(
        "pre_prob",
        one_of("even", "pre_prob", "teacher"),
        "How choices are drawn: evenly, by PRE_PROB, or (teacher) as often as the full board holds each choice.",
        jobs=SPACES,
    )
    PRE_PROB: Numbers = key(
        (0.05, 0.2, 0.05, 0.5, 0.05, 0.15),
        WEIGHTS,
        "Weight of each choice in a draw, where HOW_TO_PROB is pre_prob.",
        jobs=SPACES,
    )
    PROBES: int = key(
        4, COUNT, "Fixed paths that are evaluated after every epoch.", unit="paths", source=OURS, jobs=SUPERNETS
    )
    SELECT_RANDOM: int = key(
        0,
        COUNT_OR_NONE,
        "Random paths that are scored in the end beside those of the board.",
        unit="paths",
        source=OURS,
        jobs=("search", "select"),
    )
    SELECT_BATCHES: int = key(
        32,
        COUNT,
        "Training batches that recalibrate batch norm before a path is scored.",
        unit="batches",
        source=OURS,
        jobs=("search", *CHOICES),
    )
    SELECT_BY: str = key(
        "prec1",
        one_of("prec1", "loss", "loss_and_estimate"),
        "Metric with the supernet's weights that ranks paths in a selection and an evolution. A selection from a "
        "search with ESTIMATE can also rank by the sum of the loss and its estimate.",
        source=OURS,
        jobs=("search", *CHOICES),
    )
    SELECT_ON: str = key(
        "val",
        one_of("val", "held_out"),
        "Images that decide the selection: those of validation, or training images that the search did not see.",
        source=OURS,
        jobs=AUGMENTED,
    )
    HELD_OUT: float = key(
        0.1,
        ABOVE_ZERO,
        "How many training images SELECT_ON: held_out keeps; a share below 1, or else a number.",
        source=OURS,
        jobs=AUGMENTED,
    )
    PARAMS_MAXIMUM: Optional[float] = key(
        None,
        ABOVE_ZERO,
        "Largest number of parameters of the selected path.",
        unit="millions",
        source=OURS,
        jobs=(*SUPERNETS, *CHOICES),
    )
    LATENCY_MAXIMUM: Optional[float] = key(
        None,
        ABOVE_ZERO,
        "Largest latency of the selected path, as LATENCY_TABLE predicts it.",
        unit="ms",
        source=OURS,
        jobs=(*SUPERNETS, *CHOICES),
    )
    LATENCY_TABLE: Optional[str] = key(
        None, ANYTHING, "File that tools/latency.py wrote.", source=OURS, jobs=(*SUPERNETS, *CHOICES)
    )


@dataclass
class Evolution:
    """Evolution of the paths of a trained supernet."""

    POPULATION: int = key(
        50, at_least(1, 10**6), "Paths of each generation.", unit="paths", source=OURS, jobs=("spos_search",)
    )
    TOP: int = key(
        10,
        at_least(1, 10**6),
        "Best paths, which are the parents.",
        unit="paths",
        source=OURS,
        jobs=("spos_search",),
    )
    CROSSOVER: int = key(
        25, at_least(0, 10**6), "Children of two paths.", unit="paths", source=OURS, jobs=("spos_search",)
    )
    MUTATION: int = key(
        25, at_least(0, 10**6), "Mutated copies of one path.", unit="paths", source=OURS, jobs=("spos_search",)
    )
    MUTATION_PROBABILITY: float = key(
        0.1, between(0, 1), "Probability that a mutation draws a choice anew.", source=OURS, jobs=("spos_search",)
    )
    GENERATIONS: int = key(
        20, at_least(1, 10**6), "Number of generations, with the first, random one.", source=OURS, jobs=("spos_search",)
    )
