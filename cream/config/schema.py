"""Dataclasses of all settings: each key with its default, what its values must be, what it means and who reads it.

The keys and defaults are those of microsoft/Cream; ``source`` marks the keys that NNI or this project adds.
``docs/settings.md`` is generated from this file.
"""

from dataclasses import dataclass
from typing import Optional

from cream.config.bounds import (
    ABOVE_ZERO,
    ALL,
    AUGMENTED,
    BELOW_ONE,
    CHOICES,
    COUNT,
    COUNT_OR_NONE,
    CROP_SCALE,
    ENDINGS,
    EVALUATED,
    FOLDER_NAME,
    IMAGES,
    NETS,
    NNI,
    NOT_EMPTY,
    OURS,
    PIXELS,
    POSITIVE_SHARE,
    STAGES,
    SUPERNETS,
    TESTED,
    THREE,
    THREE_ABOVE_ZERO,
    TRAININGS,
)
from cream.config.search_schema import Evolution, Shuffle, Supernet
from cream.fields import ANYTHING, ArchLists, Numbers, at_least, between, key, one_of, section

__all__ = ["Augmentation", "BatchNorm", "Config", "Dataset", "Ema", "Evolution", "Kd", "Net", "Shuffle", "Supernet"]


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
        POSITIVE_SHARE,
        "Side of the central crop in evaluation, as a share of the resized image's; None takes 0.875.",
        source=OURS,
        jobs=IMAGES,
    )
    IMG_EXTENSIONS: tuple[str, ...] = key(
        (),
        ENDINGS,
        "Endings of names that are images too, beside .png, .jpg and .jpeg.",
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
        (0.229, 0.224, 0.225),
        THREE_ABOVE_ZERO,
        "Divides each channel once MEAN is subtracted.",
        source=OURS,
        jobs=IMAGES,
    )
    TRAIN_CROP: str = key(
        "rrc",
        one_of("rrc", "pad"),
        "How a training image is cut: a random part, scaled (rrc); or, for small images, any part of the net's size "
        "after an eighth was added in black at every side (pad).",
        source=OURS,
        jobs=AUGMENTED,
    )
    SCALE: Numbers = key(
        (0.08, 1.0),
        CROP_SCALE,
        "Least and largest share of the area that a random crop for training takes, where TRAIN_CROP is rrc.",
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
        "File of weights that a training starts from, such as a search's architecture.pdparams; a classifier of "
        "other classes begins anew.",
        source=OURS,
        jobs=(*TRAININGS, "spos_search"),
    )
    FREEZE: tuple[str, ...] = key(
        (),
        ANYTHING,
        "Patterns of the layers and parameters that stay as they are, such as conv_stem or blocks.[0-3].",
        source=OURS,
        jobs=NETS,
    )
    GP: str = key("avg", one_of("avg", "max", "avgmax", "catavgmax"), "Global pooling before the classifier.", jobs=ALL)
    DROPOUT_RATE: float = key(0.0, BELOW_ONE, "Share of the classifier's inputs that training drops.", jobs=ALL)
    EMA: Ema = section(Ema)


@dataclass
class Kd:
    """A teacher whose logits a retraining learns from (knowledge distillation), by the names of timm's options."""

    CHECKPOINT: Optional[str] = key(
        None,
        ANYTHING,
        "The teacher: the folder of a search or training, a checkpoint, or a file of weights; None for no teacher.",
        source=OURS,
        jobs=NETS,
    )
    MODEL_NAME: Optional[str] = key(
        None,
        ANYTHING,
        "The net of a file of weights, as convert-weights --model takes it; None tells it by the weights.",
        source=OURS,
        jobs=NETS,
    )
    TEMPERATURE: float = key(4.0, ABOVE_ZERO, "Divides the logits of teacher and net.", source=OURS, jobs=NETS)
    TASK_LOSS_WEIGHT: Optional[float] = key(
        None, at_least(0), "Weight of the loss of the labels; None for 1.", source=OURS, jobs=NETS
    )
    DISTILL_LOSS_WEIGHT: Optional[float] = key(
        None,
        at_least(0),
        "Weight of the divergence from the teacher; None for 1, or for 1 minus a given TASK_LOSS_WEIGHT.",
        source=OURS,
        jobs=NETS,
    )


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
        "What an erased rectangle is filled with: zeros (const), one random colour (rand), or random pixels (pixel).",
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
        "In a test: the run, checkpoint or weights to test. In a training: the run or checkpoint to resume from where "
        "the training's own folder has no checkpoint.",
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
        "prec1", one_of("prec1", "prec5", "loss"), "Metric that ranks the checkpoints.", jobs=TRAININGS
    )
    DEVICE: str = key(
        "",
        ANYTHING,
        "Device: cpu, gpu, gpu:1, npu, xpu, NAME[:N]; empty takes a GPU or another accelerator where there is one.",
        source=OURS,
        jobs=ALL,
    )
    ENGINE: str = key(
        "auto",
        one_of("auto", "eager", "inference"),
        "What evaluates a net: eager runs its layers one by one; inference exports it once and runs the program on "
        "the CPU, by Paddle Inference with oneDNN or an operator for small nets; auto takes inference where it can be "
        "had, and eager elsewhere. Paths of a supernet are scored one by one with eager, and otherwise together on a "
        "CPU, where they share what they have in common.",
        source=OURS,
        jobs=EVALUATED,
    )
    PRECISION: str = key(
        "fp32",
        one_of("fp32", "bf16"),
        "Numbers that the engine of Paddle Inference computes with; bf16 needs a CPU that has it.",
        source=OURS,
        jobs=EVALUATED,
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
        "YAML file with the recipe that goes into retrain.yaml, for the selected net; None takes the paper's recipe.",
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
    BACKBONE_LR_SCALE: Optional[float] = key(
        None,
        between(0, 1),
        "Rate of all but the classifier, relative to LR; None for the same rate.",
        source=OURS,
        jobs=NETS,
    )
    LAYER_DECAY: Optional[float] = key(
        None,
        POSITIVE_SHARE,
        "Rate of a layer relative to that of the next layer, with the classifier at LR; None for one rate.",
        source=OURS,
        jobs=NETS,
    )
    LR_NOISE: Optional[Numbers] = key(
        None,
        ANYTHING,
        "Shares of EPOCHS between which noise is added to the rate; a single share is where the noise starts.",
        jobs=TRAININGS,
    )
    LR_NOISE_PCT: float = key(0.67, at_least(0), "Largest noise of LR_NOISE, as a share of the rate.", jobs=TRAININGS)
    LR_NOISE_STD: float = key(
        1.0, at_least(0), "Standard deviation of LR_NOISE; no effect, as in timm 0.1.20.", jobs=TRAININGS
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
        "Epochs at MIN_LR after EPOCHS; in the plateau schedule, epochs after a decay that PATIENCE_EPOCHS ignores.",
        unit="epochs",
        jobs=TRAININGS,
    )
    PATIENCE_EPOCHS: int = key(
        10, COUNT_OR_NONE, "Epochs without a gain before the plateau schedule decays.", unit="epochs", jobs=TRAININGS
    )
    DECAY_RATE: float = key(0.1, at_least(0), "Factor of a decay of the step or plateau schedule.", jobs=TRAININGS)

    KD: Kd = section(Kd)
    AUGMENTATION: Augmentation = section(Augmentation)
    BATCHNORM: BatchNorm = section(BatchNorm)
    SUPERNET: Supernet = section(Supernet)
    EVOLUTION: Evolution = section(Evolution)
