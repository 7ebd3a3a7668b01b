"""What the values of settings must be, whose keys they have, and which jobs read them."""

from cream.fields import Rule, at_least

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
EVALUATED = ("test", *CHOICES)
IMAGES = (*TRAININGS, "test", *CHOICES)
AUGMENTED = TRAININGS + CHOICES
ALL = (*IMAGES, "latency")

MANY = 10**9
LARGEST_IMAGE = 4096

NOT_EMPTY = Rule("not empty", bool)
FOLDER_NAME = Rule(
    "the name of one folder: not empty, at most 255 bytes, without / and no . or ..",
    lambda value: value not in ("", ".", "..") and "/" not in value and len(value.encode()) <= 255,
)
COUNT = at_least(1, MANY)
COUNT_OR_NONE = at_least(0, MANY)
PIXELS = at_least(8, LARGEST_IMAGE)
ABOVE_ZERO = Rule("above 0", lambda value: value > 0)
POSITIVE_SHARE = Rule("above 0 and at most 1", lambda value: 0 < value <= 1)
BELOW_ONE = Rule("at least 0 and below 1", lambda value: 0 <= value < 1)
THREE = Rule("three of them, one a channel", lambda value: len(value) == 3)
THREE_ABOVE_ZERO = Rule("three of them above 0", lambda value: len(value) == 3 and min(value) > 0)
CROP_SCALE = Rule(
    "two shares of the area, 0 < low <= high <= 1", lambda value: len(value) == 2 and 0 < value[0] <= value[1] <= 1
)
ENDINGS = Rule(
    "each a dot and letters, such as .tif",
    lambda value: all(text.startswith(".") and text[1:].isalnum() for text in value),
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
    "no stage of them empty, at most 1000 numbers, none above 999",
    lambda value: value and all(value) and sum(map(len, value)) <= 1000 and max(map(max, value)) <= 999,
)
