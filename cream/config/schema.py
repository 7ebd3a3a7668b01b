"""Dataclasses of all settings: each key with its default, what its values must be, what it means and who reads it.

The keys and defaults are those of microsoft/Cream; ``source`` marks the keys that NNI or this project adds.
``docs/settings.md`` is generated from this file.
"""

from dataclasses import dataclass
from typing import Optional

from cream.fields import ANYTHING, ArchLists, Nested, Numbers, Rule, at_least, between, key, one_of, section

# Where a key comes from, if not from microsoft/Cream.
NNI = "NNI"
OURS = "ours"

# The jobs that read a key, by the names of their commands in `cream.cli`.
SUPERNETS = ("search", "spos_supernet")
NETS = ("retrain", "spos_scratch")
TRAININGS = SUPERNETS + NETS
CHOICES = ("select", "spos_search")
SPACES = (*SUPERNETS, *CHOICES, "latency")
FITTED = (*SPACES, "spos_scratch")
TESTED = (*NETS, "test")
IMAGES = (*TRAININGS, "test", *CHOICES)
AUGMENTED = TRAININGS + CHOICES
ALL = (*IMAGES, "latency")

MANY = 10**9
LARGEST_IMAGE = 4096

NOT_EMPTY = Rule("not empty", bool)
FOLDER_NAME = Rule(
    "the name of one folder: not empty, at most 200 bytes, without / and no . or ..",
    lambda value: value not in ("", ".", "..") and "/" not in value and len(value.encode()) <= 200,
)
COUNT = at_least(1, MANY)
COUNT_OR_NONE = at_least(0, MANY)
PIXELS = at_least(8, LARGEST_IMAGE)
ABOVE_ZERO = Rule("above 0", lambda value: value > 0)
BELOW_ONE = Rule("at least 0 and below 1", lambda value: 0 <= value < 1)
THREE = Rule("three of them, one a channel", lambda value: len(value) == 3)
THREE_ABOVE_ZERO = Rule("three of them above 0", lambda value: len(value) == 3 and min(value) > 0)
CROP_SCALE = Rule(
    "two shares of the area, 0 < low <= high <= 1", lambda value: len(value) == 2 and 0 < value[0] <= value[1] <= 1
)
WEIGHTS = Rule("none below 0 and at least one above", lambda value: value and min(value) >= 0 and sum(value) > 0)
DEPTHS = Rule(
    "five of them, each at least 1 and at most 100",
    lambda value: len(value) == 5 and 1 <= min(value) <= max(value) <= 100,
)
BLOCK_COUNTS = Rule("each at least 1 and at most 100", lambda value: value and 1 <= min(value) <= max(value) <= 100)
# A block that halves the image puts what it makes beside all that it takes, and the first one takes 16 channels.
WIDENING = Rule(
    "even numbers, each above the one before it, the first above 16, the last at most 10000",
    lambda value: (
        value and all(low < high and high % 2 == 0 for low, high in zip((16, *value), value)) and value[-1] <= 10000
    ),
)
ABOVE_ZERO_EACH = Rule("each above 0", lambda value: value and min(value) > 0)
STAGES = Rule(
    "no stage of them empty, no number above 999",
    lambda value: value and all(value) and max(map(max, value)) <= 999,
)


@dataclass
class Dataset:
    """Images: how many classes, how large, how they are cut and shown."""

    NUM_CLASSES: int = key(1000, COUNT, "Number of classes; the image folders must have as many.", jobs=ALL)
    IMAGE_SIZE: int = key(
        224,
        PIXELS,
        "Width and height of the images. A search in Cream's space takes SUPERNET.RESOLUTION, or the size that its "
        "FLOPs range implies, in its place.",
        unit="pixels",
        jobs=ALL,
    )
    INTERPOLATION: str = key(
        "bilinear",
        one_of("bilinear", "bicubic", "lanczos", "hamming", "random"),
        "Filter that resizes images for evaluation; training draws one for each image.",
        jobs=IMAGES,
    )
    BATCH_SIZE: int = key(32, COUNT, "Images in a batch of one process.", unit="images", jobs=ALL)
    VAL_BATCH_MUL: int = key(4, COUNT, "Batches of evaluation are this many times as large.", jobs=IMAGES)
    NO_PREFECHTER: bool = key(
        False, ANYTHING, "Normalise images in the workers, not on the device (official spelling).", jobs=IMAGES
    )
    CROP_PCT: Optional[float] = key(
        None,
        Rule("above 0 and at most 1", lambda value: 0 < value <= 1),
        "Side of the central crop in evaluation, as a share of the resized image's; None takes 0.875.",
        source=OURS,
        jobs=IMAGES,
    )
    SPOS_PREPROCESSING: bool = key(
        False,
        ANYTHING,
        "Show images as SPOS's authors do: blue channel first, values of 0 to 255; MEAN and STD then do not act.",
        source=OURS,
        jobs=IMAGES,
    )
    MEAN: Numbers = key(
        (0.485, 0.456, 0.406), THREE, "Subtracted from each channel of values from 0 to 1.", source=OURS, jobs=IMAGES
    )
    STD: Numbers = key(
        (0.229, 0.224, 0.225), THREE_ABOVE_ZERO, "Divides each channel after that.", source=OURS, jobs=IMAGES
    )
    SCALE: Numbers = key(
        (0.08, 1.0),
        CROP_SCALE,
        "Least and largest share of the area that a random crop for training takes.",
        source=OURS,
        jobs=AUGMENTED,
    )
    HFLIP: float = key(
        0.5, between(0, 1), "Probability that a training image is mirrored.", source=OURS, jobs=AUGMENTED
    )


@dataclass
class Ema:
    """Moving average of the weights (EMA)."""

    USE: bool = key(
        True, ANYTHING, "Keep a moving average of the weights; in a test: test it if there is one.", jobs=TESTED
    )
    DECAY: float = key(0.9998, between(0, 1), "Share of the average that each update keeps.", jobs=NETS)


@dataclass
class Net:
    """The net that is trained or tested."""

    SELECTION: int = key(
        14,
        at_least(-1, 10**6),
        "Published net, by its MFLOPs: 14, 43, 114, 287, 481 or 604; -1 takes the net of INPUT_ARCH.",
        jobs=TESTED,
    )
    INPUT_ARCH: Optional[ArchLists] = key(
        None, STAGES, "Architecture: for each stage a list with the choice of every block.", source=NNI, jobs=TESTED
    )
    INITIAL_WEIGHTS: Optional[str] = key(
        None,
        ANYTHING,
        "File of weights that a training starts from, such as a search's architecture.pdparams.",
        source=OURS,
        jobs=(*TRAININGS, "spos_search"),
    )
    GP: str = key("avg", one_of("avg", "max", "avgmax", "catavgmax"), "Global pooling before the classifier.", jobs=ALL)
    DROPOUT_RATE: float = key(0.0, BELOW_ONE, "Share of the classifier's inputs that training drops.", jobs=ALL)
    EMA: Ema = section(Ema)


@dataclass
class Augmentation:
    """Random changes to the training images and labels."""

    AA: Optional[str] = key(
        "rand-m9-mstd0.5",
        ANYTHING,
        "Automatic augmentation: rand-..., augmix-..., or a policy such as v0 or original; None for none.",
        jobs=NETS,
    )
    COLOR_JITTER: float = key(
        0.4, at_least(0), "Range of random brightness, contrast and saturation, where AA does not act.", jobs=AUGMENTED
    )
    RE_PROB: float = key(0.2, between(0, 1), "Probability that a rectangle of an image is erased.", jobs=AUGMENTED)
    RE_MODE: str = key(
        "pixel",
        one_of("const", "rand", "pixel"),
        "What it is filled with: zeros, one random colour, or random pixels.",
        jobs=AUGMENTED,
    )
    MIXUP: float = key(0.0, at_least(0), "Alpha of mixup, which blends pairs of images; 0 switches it off.", jobs=NETS)
    MIXUP_OFF_EPOCH: int = key(
        0, COUNT_OR_NONE, "Epoch from which mixup is off; 0 keeps it on.", unit="epochs", jobs=NETS
    )
    SMOOTHING: float = key(0.1, BELOW_ONE, "Label smoothing: probability taken from the true class.", jobs=TRAININGS)


@dataclass
class BatchNorm:
    """Batch normalisation."""

    SYNC_BN: bool = key(False, ANYTHING, "Normalise over the batches of all processes together.", jobs=ALL)
    BN_TF: bool = key(False, ANYTHING, "Take TensorFlow's momentum 0.01 and epsilon 0.001.", jobs=ALL)
    BN_MOMENTUM: float = key(0.1, between(0, 1), "Weight of a new batch in the running statistics.", jobs=ALL)
    BN_EPS: float = key(1e-5, ABOVE_ZERO, "Added to the variance before the division.", jobs=ALL)


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
    """The search: its space, how the supernet is trained, and how a path is chosen in the end."""

    FAMILY: str = key(
        "mobile",
        one_of("mobile", "shuffle"),
        "Nets to search: Cream's MobileNet blocks, or SPOS's ShuffleNetV2 blocks.",
        source=OURS,
        jobs=ALL,
    )
    SHUFFLE: Shuffle = section(Shuffle)
    FLOPS_MINIMUM: float = key(
        0.0, at_least(0), "Least cost of a path that is drawn or chosen.", unit="MFLOPs", jobs=FITTED
    )
    FLOPS_MAXIMUM: float = key(
        600.0,
        ABOVE_ZERO,
        "Largest cost of a path that is drawn or chosen; with FLOPS_MINIMUM it implies the depth of Cream's space and "
        "the size of its images.",
        unit="MFLOPs",
        jobs=FITTED,
    )
    FLOPS_BINS: int = key(
        1,
        at_least(1, 10**6),
        "Equal parts of that range; each draw picks a part first, then a path of it.",
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
        False, ANYTHING, "Draw leaving out a block that keeps the shape as one more choice.", source=OURS, jobs=ALL
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
        one_of("cream", "single_path"),
        "How the supernet is trained: Cream's board and matching network, or SPOS's single paths.",
        source=OURS,
        jobs=(*SUPERNETS, *CHOICES),
    )
    SLICE: int = key(4, COUNT, "Images of a batch that the matching network learns from.", unit="images", jobs=SPACES)
    POOL_SIZE: int = key(10, COUNT, "Places on the prioritized board.", unit="paths", jobs=(*SUPERNETS, *CHOICES))
    UPDATE_ITER: int = key(
        1300, COUNT, "Taught batches between two updates of the matching network.", unit="batches", jobs=SUPERNETS
    )
    META_STA_EPOCH: int = key(
        20, COUNT_OR_NONE, "Epoch after which paths of the board teach.", unit="epochs", jobs=SUPERNETS
    )
    PICK_METHOD: str = key(
        "meta",
        one_of("meta", "top1"),
        "Who teaches a path: the entry that the matching network prefers, or the board's best.",
        jobs=SUPERNETS,
    )
    HOW_TO_PROB: str = key(
        "pre_prob",
        one_of("even", "pre_prob", "teacher"),
        "How choices are drawn: evenly, by PRE_PROB, or as often as the board has them.",
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
    SELECT_ON: str = key(
        "val",
        one_of("val", "held_out"),
        "Images that decide the choice: those of validation, or training images that the search did not see.",
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
        "Most parameters of the chosen path.",
        unit="millions",
        source=OURS,
        jobs=(*SUPERNETS, *CHOICES),
    )
    LATENCY_MAXIMUM: Optional[float] = key(
        None,
        ABOVE_ZERO,
        "Largest latency of the chosen path, as LATENCY_TABLE predicts it.",
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
        10, at_least(1, 10**6), "Best paths, which have children.", unit="paths", source=OURS, jobs=("spos_search",)
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
        20, at_least(1, 10**6), "How often a new generation is bred.", source=OURS, jobs=("spos_search",)
    )


@dataclass
class Config:
    """The run: data, folders, checkpoints, optimizer and schedule."""

    AUTO_RESUME: bool = key(
        True,
        ANYTHING,
        "Resume a run from its latest checkpoint; False refuses a folder that holds one.",
        jobs=TRAININGS,
    )
    DATA_DIR: str = key(
        "./data/imagenet", NOT_EMPTY, "Folder that holds train/ and val/, or train.tar and val.tar.", jobs=IMAGES
    )
    MODEL: str = key(
        "cream", FOLDER_NAME, "Name of the run: results go to SAVE_PATH/MODEL.", jobs=(*TRAININGS, *CHOICES)
    )
    RESUME_PATH: str = key(
        "./experiments/ckps/resume.pth.tar",
        ANYTHING,
        "In a test the run, checkpoint or weights to test; in a training what to resume from where its own folder has "
        "no checkpoint.",
        jobs=(*TRAININGS, "test"),
    )
    SAVE_PATH: str = key("./experiments/ckps/", NOT_EMPTY, "Folder of all runs.", jobs=(*TRAININGS, *CHOICES))
    SEED: int = key(42, between(0, 2**32 - 1), "Start of every random stream.", jobs=ALL)  # numpy takes no larger one
    LOG_INTERVAL: int = key(50, COUNT, "Batches between two lines of the log.", unit="batches", jobs=TRAININGS)
    RECOVERY_INTERVAL: int = key(
        0,
        COUNT_OR_NONE,
        "Batches between two checkpoints inside an epoch; 0 for none.",
        unit="batches",
        jobs=TRAININGS,
    )
    WORKERS: int = key(4, at_least(0, 1024), "Processes that read images, for each training process.", jobs=IMAGES)
    AMP: bool = key(False, ANYTHING, "Train in mixed precision.", jobs=TRAININGS)
    ACC_GAP: Optional[float] = key(
        None,
        at_least(0),
        "The official code's rule for a full board: a path replaces the last entry if it is this much more accurate, "
        "or more accurate and cheaper. None: if it is more accurate, or as accurate and cheaper.",
        unit="% top-1",
        source=NNI,
        jobs=SUPERNETS,
    )
    EVAL_METRICS: str = key(
        "prec1", one_of("prec1", "prec5", "loss"), "What the best checkpoint is best in.", jobs=TRAININGS
    )
    DEVICE: str = key(
        "", one_of("", "cpu", "gpu"), "Device; empty takes a GPU where there is one.", source=OURS, jobs=ALL
    )
    CHECKPOINT_HISTORY: int = key(
        3, COUNT, "How many checkpoints of whole epochs are kept.", source=OURS, jobs=TRAININGS
    )
    RECOVERY_HISTORY: int = key(
        2, COUNT, "How many checkpoints from inside epochs are kept.", source=OURS, jobs=TRAININGS
    )
    RETRAIN_CFG: Optional[str] = key(
        None,
        ANYTHING,
        "YAML file with the recipe for training the found net, which goes into retrain.yaml; None takes the paper's.",
        source=OURS,
        jobs=(*SUPERNETS, *CHOICES),
    )

    DATASET: Dataset = section(Dataset)
    NET: Net = section(Net)

    OPT: str = key("sgd", NOT_EMPTY, "Optimizer, by timm's name: sgd, rmsproptf, adamw, ...", jobs=TRAININGS)
    OPT_EPS: float = key(1e-2, ABOVE_ZERO, "Epsilon of the optimizers that have one.", jobs=TRAININGS)
    MOMENTUM: float = key(0.9, between(0, 1), "Momentum of the optimizers that have one.", jobs=TRAININGS)
    WEIGHT_DECAY: float = key(1e-4, at_least(0), "Weight decay; not of biases and batch norm.", jobs=TRAININGS)
    CLIP_GRAD: Optional[float] = key(
        None, ABOVE_ZERO, "Largest norm of all gradients together; None for no limit.", source=OURS, jobs=TRAININGS
    )

    SCHED: str = key(
        "sgd",
        one_of("sgd", "linear", "cosine", "tanh", "step", "plateau"),
        "Schedule of the learning rate; sgd is a constant rate in a retraining, and a line to 0 in a search.",
        jobs=TRAININGS,
    )
    LR: float = key(1e-2, at_least(0), "Learning rate, for the batch of all processes together.", jobs=TRAININGS)
    META_LR: float = key(1e-4, at_least(0), "Learning rate of the matching network.", jobs=SUPERNETS)
    LR_NOISE: Optional[Numbers] = key(
        None, ANYTHING, "Shares of EPOCHS between which the rate is noisy, or where that begins.", jobs=TRAININGS
    )
    LR_NOISE_PCT: float = key(0.67, at_least(0), "Limit of that noise, as a share of the rate.", jobs=TRAININGS)
    LR_NOISE_STD: float = key(
        1.0, at_least(0), "Standard deviation of that noise; has no effect, as in timm 0.1.20.", jobs=TRAININGS
    )
    WARMUP_LR: float = key(1e-4, at_least(0), "Learning rate at the start of the warm-up.", jobs=TRAININGS)
    MIN_LR: float = key(1e-5, at_least(0), "Learning rate at the end.", jobs=TRAININGS)
    EPOCHS: int = key(200, COUNT, "Length of the training, without COOLDOWN_EPOCHS.", unit="epochs", jobs=TRAININGS)
    DECAY_EPOCHS: float = key(
        30.0, ABOVE_ZERO, "Time between two decays of the step schedule.", unit="epochs", jobs=TRAININGS
    )
    WARMUP_EPOCHS: int = key(3, COUNT_OR_NONE, "Length of the warm-up.", unit="epochs", jobs=TRAININGS)
    COOLDOWN_EPOCHS: int = key(
        10,
        COUNT_OR_NONE,
        "Epochs at MIN_LR after EPOCHS; of the plateau schedule: epochs after a decay that it does not count.",
        unit="epochs",
        jobs=TRAININGS,
    )
    PATIENCE_EPOCHS: int = key(
        10, COUNT_OR_NONE, "Epochs without a gain before the plateau schedule decays.", unit="epochs", jobs=TRAININGS
    )
    DECAY_RATE: float = key(0.1, at_least(0), "Factor of a decay of the step or plateau schedule.", jobs=TRAININGS)

    AUGMENTATION: Augmentation = section(Augmentation)
    BATCHNORM: BatchNorm = section(BatchNorm)
    SUPERNET: Supernet = section(Supernet)
    EVOLUTION: Evolution = section(Evolution)
