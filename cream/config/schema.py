"""The settings: dataclasses with the keys of Cream's YAML files, their defaults and what their values must be.

The keys and defaults are those of microsoft/Cream (and NNI 2.5's copy); keys that are ours are marked so.
"""

from dataclasses import dataclass
from typing import Optional

from cream.fields import ArchLists, Nested, Numbers, Rule, at_least, between, key, one_of, section

NOT_EMPTY = Rule("not empty", bool)
ABOVE_ZERO = Rule("above 0", lambda value: value > 0)
THREE = Rule("three of them, one a channel", lambda value: len(value) == 3)
THREE_ABOVE_ZERO = Rule("three of them above 0", lambda value: len(value) == 3 and min(value) > 0)
CROP_SCALE = Rule(
    "two shares of the area, 0 < low <= high <= 1", lambda value: len(value) == 2 and 0 < value[0] <= value[1] <= 1
)
WEIGHTS = Rule("none below 0 and at least one above", lambda value: value and min(value) >= 0 and sum(value) > 0)
DEPTHS = Rule("five of them, each at least 1", lambda value: len(value) == 5 and min(value) >= 1)
EACH_AT_LEAST_1 = Rule("each at least 1", lambda value: value and min(value) >= 1)
# A block that halves the image puts what it makes beside all that it takes, and the first one takes 16 channels.
WIDENING = Rule(
    "even numbers, each above the one before it, the first above 16",
    lambda value: value and all(low < high and high % 2 == 0 for low, high in zip((16, *value), value)),
)
ABOVE_ZERO_EACH = Rule("each above 0", lambda value: value and min(value) > 0)
STAGES = Rule("no stage of them empty", lambda value: value and all(value))


@dataclass
class Dataset:
    """Images: where they come from is ``Config.DATA_DIR``."""

    NUM_CLASSES: int = key(1000, at_least(1))
    IMAGE_SIZE: int = key(224, at_least(8))
    INTERPOLATION: str = key("bilinear", one_of("bilinear", "bicubic", "lanczos", "hamming", "random"))  # of evaluation
    BATCH_SIZE: int = key(32, at_least(1))  # of one process
    VAL_BATCH_MUL: int = key(4, at_least(1))
    NO_PREFECHTER: bool = key(False)  # spelt as in the official files
    CROP_PCT: Optional[float] = key(None, Rule("above 0 and at most 1", lambda value: 0 < value <= 1))  # ours
    SPOS_PREPROCESSING: bool = key(False)  # ours: blue first, values of 0 to 255, as SPOS's authors; MEAN and STD rest
    MEAN: Numbers = key((0.485, 0.456, 0.406), THREE)  # ours
    STD: Numbers = key((0.229, 0.224, 0.225), THREE_ABOVE_ZERO)  # ours
    SCALE: Numbers = key((0.08, 1.0), CROP_SCALE)  # ours: random-resized-crop
    HFLIP: float = key(0.5, between(0, 1))  # ours


@dataclass
class Ema:
    """Moving average of the weights, in retraining and test."""

    USE: bool = key(True)
    DECAY: float = key(0.9998, between(0, 1))


@dataclass
class Net:
    """The net that is retrained or tested; SELECTION -1 means the one that INPUT_ARCH gives."""

    SELECTION: int = key(14)
    INPUT_ARCH: Optional[ArchLists] = key(None, STAGES)  # NNI's
    INITIAL_WEIGHTS: Optional[str] = key(None)  # ours: what a training starts from, such as architecture.pdparams
    GP: str = key("avg", one_of("avg", "max", "avgmax", "catavgmax"))
    DROPOUT_RATE: float = key(0.0, Rule("at least 0 and below 1", lambda value: 0 <= value < 1))
    EMA: Ema = section(Ema)


@dataclass
class Augmentation:
    """Changes to the training images and labels."""

    AA: Optional[str] = key("rand-m9-mstd0.5")
    COLOR_JITTER: float = key(0.4, at_least(0))
    RE_PROB: float = key(0.2, between(0, 1))
    RE_MODE: str = key("pixel", one_of("const", "rand", "pixel"))
    MIXUP: float = key(0.0, at_least(0))
    MIXUP_OFF_EPOCH: int = key(0, at_least(0))
    SMOOTHING: float = key(0.1, Rule("at least 0 and below 1", lambda value: 0 <= value < 1))


@dataclass
class BatchNorm:
    """Batch normalisation; BN_MOMENTUM is the weight of the new value, as in the official files."""

    SYNC_BN: bool = key(False)
    BN_TF: bool = key(False)
    BN_MOMENTUM: float = key(0.1, between(0, 1))
    BN_EPS: float = key(1e-5, ABOVE_ZERO)


@dataclass
class Shuffle:
    """SPOS's space of ShuffleNetV2 blocks: blocks and channels of its stages, ratios of the channels inside a block."""

    DEPTHS: tuple[int, ...] = key((4, 4, 8, 4), EACH_AT_LEAST_1)
    CHANNELS: tuple[int, ...] = key((64, 160, 320, 640), WIDENING)
    RATIOS: Numbers = key((1.0,), ABOVE_ZERO_EACH)  # several search channels too; the paper's are 0.2, 0.4, ... 2.0


@dataclass
class Supernet:
    """The search: FLOPs in millions of multiply-adds, UPDATE_ITER in steps, META_STA_EPOCH in epochs."""

    FAMILY: str = key("mobile", one_of("mobile", "shuffle"))  # ours: Cream's nets, or SPOS's
    SHUFFLE: Shuffle = section(Shuffle)  # ours
    FLOPS_MINIMUM: float = key(0.0, at_least(0))
    FLOPS_MAXIMUM: float = key(600.0, ABOVE_ZERO)
    FLOPS_BINS: int = key(1, at_least(1))  # ours: equal parts of that range, of which each path draws one
    RESOLUTION: Optional[int] = key(None, at_least(8))  # ours: in place of the one that the FLOPs range implies
    STAGE_DEPTHS: Optional[tuple[int, ...]] = key(None, DEPTHS)  # ours: in place of those that it implies
    RESUNIT: bool = key(False)
    DIL_CONV: bool = key(False)
    SKIP: bool = key(False)  # ours: leaving out a block that keeps the shape is drawn as an operation is
    SPACE: Optional[Nested] = key(None)  # ours: in place of Cream's space, one described here or in the file named here
    METHOD: str = key("cream", one_of("cream", "single_path"))  # ours: how the supernet is trained
    SLICE: int = key(4, at_least(1))
    POOL_SIZE: int = key(10, at_least(1))
    UPDATE_ITER: int = key(1300, at_least(1))
    META_STA_EPOCH: int = key(20, at_least(0))
    PICK_METHOD: str = key("meta", one_of("meta", "top1"))
    HOW_TO_PROB: str = key("pre_prob", one_of("even", "pre_prob", "teacher"))
    PRE_PROB: Numbers = key((0.05, 0.2, 0.05, 0.5, 0.05, 0.15), WEIGHTS)
    PROBES: int = key(4, at_least(1))  # ours: fixed paths that are evaluated after every epoch
    SELECT_RANDOM: int = key(0, at_least(0))  # ours: sampled paths that are scored in the end beside the board's
    SELECT_BATCHES: int = key(32, at_least(1))  # ours: training batches that recalibrate BN before the final choice
    SELECT_ON: str = key("val", one_of("val", "held_out"))  # ours: the images that the final choice is made on
    HELD_OUT: float = key(0.1, ABOVE_ZERO)  # ours: share or number of training images for held_out
    PARAMS_MAXIMUM: Optional[float] = key(None, ABOVE_ZERO)  # ours: of the final choice, in millions
    LATENCY_MAXIMUM: Optional[float] = key(None, ABOVE_ZERO)  # ours: of the final choice, ms by LATENCY_TABLE
    LATENCY_TABLE: Optional[str] = key(None)  # ours: a file that tools/latency.py wrote


@dataclass
class Evolution:
    """Paths of each generation: all, those of the best that have children, crosses and mutants."""

    POPULATION: int = key(50, at_least(1))
    TOP: int = key(10, at_least(1))
    CROSSOVER: int = key(25, at_least(0))
    MUTATION: int = key(25, at_least(0))
    MUTATION_PROBABILITY: float = key(0.1, between(0, 1))
    GENERATIONS: int = key(20, at_least(1))


@dataclass
class Config:
    """All settings of a search, a retraining or a test."""

    AUTO_RESUME: bool = key(True)
    DATA_DIR: str = key("./data/imagenet", NOT_EMPTY)
    MODEL: str = key("cream", NOT_EMPTY)
    RESUME_PATH: str = key("./experiments/ckps/resume.pth.tar")
    SAVE_PATH: str = key("./experiments/ckps/", NOT_EMPTY)
    SEED: int = key(42, between(0, 2**32 - 1))  # numpy takes no other
    LOG_INTERVAL: int = key(50, at_least(1))
    RECOVERY_INTERVAL: int = key(0, at_least(0))
    WORKERS: int = key(4, at_least(0))
    AMP: bool = key(False)
    ACC_GAP: Optional[float] = key(None, at_least(0))  # NNI's: the official code's rule of who gets on the board
    EVAL_METRICS: str = key("prec1", one_of("prec1", "prec5", "loss"))
    DEVICE: str = key("", one_of("", "cpu", "gpu"))  # ours: empty takes a GPU where there is one
    CHECKPOINT_HISTORY: int = key(3, at_least(1))  # ours
    RECOVERY_HISTORY: int = key(2, at_least(1))  # ours: how many checkpoints from inside epochs are kept
    RETRAIN_CFG: Optional[str] = key(None)  # ours: the recipe that a search hands on with the found net

    DATASET: Dataset = section(Dataset)
    NET: Net = section(Net)

    OPT: str = key("sgd", NOT_EMPTY)
    OPT_EPS: float = key(1e-2, ABOVE_ZERO)
    MOMENTUM: float = key(0.9, between(0, 1))
    WEIGHT_DECAY: float = key(1e-4, at_least(0))
    CLIP_GRAD: Optional[float] = key(None, ABOVE_ZERO)  # ours: norm of all gradients together

    SCHED: str = key("sgd", one_of("sgd", "linear", "cosine", "tanh", "step", "plateau"))  # sgd: constant rate
    LR: float = key(1e-2, at_least(0))
    META_LR: float = key(1e-4, at_least(0))
    LR_NOISE: Optional[Numbers] = key(None)
    LR_NOISE_PCT: float = key(0.67, at_least(0))
    LR_NOISE_STD: float = key(1.0, at_least(0))
    WARMUP_LR: float = key(1e-4, at_least(0))
    MIN_LR: float = key(1e-5, at_least(0))
    EPOCHS: int = key(200, at_least(1))
    DECAY_EPOCHS: float = key(30.0, ABOVE_ZERO)
    WARMUP_EPOCHS: int = key(3, at_least(0))
    COOLDOWN_EPOCHS: int = key(10, at_least(0))  # after EPOCHS, at MIN_LR
    PATIENCE_EPOCHS: int = key(10, at_least(0))
    DECAY_RATE: float = key(0.1, at_least(0))

    AUGMENTATION: Augmentation = section(Augmentation)
    BATCHNORM: BatchNorm = section(BatchNorm)
    SUPERNET: Supernet = section(Supernet)
    EVOLUTION: Evolution = section(Evolution)  # ours
