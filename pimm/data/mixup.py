"""Mixup (arXiv 1710.09412) and CutMix (1905.04899), on tensors or while a batch is collated.

An image is mixed with its mirror in the batch: the first with the last, and so on. All draws come from the stream of
``numpy.random``, in timm's order. Labels may be [B] or [B, 1].
"""

from __future__ import annotations

import numpy as np
import paddle.nn.functional as F

from pimm.data.device import to_device
from pimm.errors import ConfigError, DataError
from pimm.loss.reduction import require_share
from pimm.utils.labels import class_labels

MODES = ("batch", "pair", "elem", "half")


def _smoothed(labels, num_classes, smoothing, one_hot, multi_label):
    """Return the smoothed labels [B, num_classes], as array or tensor.

    Args:
        labels: classes [B] or [B, 1]; with ``multi_label`` independent labels [B, num_classes].
        num_classes: number of classes.
        smoothing: share of the label that all classes divide among them.
        one_hot: callable from classes [B] to zeros and ones [B, num_classes].
        multi_label: see ``labels``.
    """
    if not multi_label:
        return one_hot(class_labels(labels)) * (1 - smoothing) + smoothing / num_classes
    if tuple(labels.shape[1:]) != (num_classes,):
        raise ConfigError(f"mixup with multi_label needs labels [batch, {num_classes}], not {list(labels.shape)}")
    return labels.astype("float32") * (1 - smoothing) + smoothing / 2


def mixup_target(target, num_classes, lam=1.0, smoothing=0.0, multi_label=False, device=None):
    """Return the soft labels [B, num_classes] of a batch mixed with its mirror.

    Args:
        target: classes [B] or [B, 1]; with ``multi_label`` [B, num_classes], which are smoothed towards a half.
        num_classes: number of classes.
        lam: share of the batch itself, a number or an array [B, 1].
        smoothing: share of a label that all classes divide among them.
        multi_label: see ``target``.
        device: not used, as the soft labels are where the labels are; timm's scripts pass it.
    """
    soft = _smoothed(target, num_classes, smoothing, lambda classes: F.one_hot(classes, num_classes), multi_label)
    share, rest = (to_device(np.asarray(part, np.float32), target.place) for part in (lam, 1 - lam))
    return soft * share + soft.flip(0) * rest


def mixup_batch(input, target, alpha=0.2, num_classes=1000, smoothing=0.1, disable=False):
    """Mix images [B, ...] with their mirror by one share drawn from Beta(alpha, alpha).

    Args:
        input: images.
        target: classes [B] or [B, 1].
        alpha: of the Beta distribution.
        num_classes: number of classes.
        smoothing: share of a label that all classes divide among them.
        disable: do not mix; labels become soft all the same.

    Returns:
        The images and their soft labels [B, num_classes].
    """
    lam = 1.0 if disable else np.random.beta(alpha, alpha)
    return input * lam + input.flip(0) * (1 - lam), mixup_target(target, num_classes, lam, smoothing)


def _cutmix_box(height, width, share):
    """Draw a rectangle of ``1 - share`` of the image around a random centre, clipped at the borders."""
    ratio = np.sqrt(1 - share)
    cut_h, cut_w = int(height * ratio), int(width * ratio)
    center_y, center_x = np.random.randint(0, height), np.random.randint(0, width)
    top, bottom = np.clip((center_y - cut_h // 2, center_y + (cut_h + 1) // 2), 0, height)
    left, right = np.clip((center_x - cut_w // 2, center_x + (cut_w + 1) // 2), 0, width)
    return slice(top, bottom), slice(left, right)


def _between(low, high):
    """Draw a whole number from ``low`` on and below ``high``, or ``low`` where both are the same."""
    return np.random.randint(low, max(high, low + 1))


def _minmax_box(height, width, minmax):
    """Draw a rectangle inside the image with sides from ``minmax``, parts of the image's sides."""
    cut_h, cut_w = (_between(int(side * minmax[0]), int(side * minmax[1])) for side in (height, width))
    top, left = np.random.randint(0, height - cut_h + 1), np.random.randint(0, width - cut_w + 1)
    return slice(top, top + cut_h), slice(left, left + cut_w)


class Mixup:
    """Mix images and labels of a batch: ``mixup(images, labels)`` gives images and soft labels [B, num_classes].

    ``mixup_enabled = False`` stops the mixing; labels stay soft.

    Args:
        mixup_alpha: of the Beta distribution of Mixup's share; 0 turns Mixup off.
        cutmix_alpha: of the Beta distribution of CutMix's share; 0 turns CutMix off.
        cutmix_minmax: range of the pasted rectangle's sides as parts of the image's, instead of ``cutmix_alpha``.
        prob: probability of mixing at all, for each batch or element.
        switch_prob: probability of CutMix where both methods are on.
        mode: one draw for the ``batch``, for each ``pair`` of mirror images, or for each ``elem``.
        correct_lam: count the share of labels from the rectangle after clipping.
        label_smoothing: share of a label that all classes divide among them.
        num_classes: number of classes.
        multi_label: labels are [B, num_classes] of zeros and ones instead of classes.

    Raises:
        ConfigError: for settings outside their range, an odd batch in mode ``pair`` or ``half``, and labels that do not
            fit ``multi_label``.
    """

    modes = MODES[:3]

    def __init__(
        self,
        mixup_alpha=1.0,
        cutmix_alpha=0.0,
        cutmix_minmax=None,
        prob=1.0,
        switch_prob=0.5,
        mode="batch",
        correct_lam=True,
        label_smoothing=0.1,
        num_classes=1000,
        multi_label=False,
    ):
        if mode not in self.modes:
            raise ConfigError(f"mixup mode {mode!r:.80} is none of {', '.join(self.modes)}")
        if cutmix_minmax is not None and not (
            len(cutmix_minmax) == 2 and 0 <= cutmix_minmax[0] <= cutmix_minmax[1] <= 1
        ):
            raise ConfigError(f"cutmix_minmax {cutmix_minmax} is not a range (low, high) between 0 and 1")
        require_share(label_smoothing)
        for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if not alpha < np.inf:  # the draws of such a Beta distribution are not numbers
                raise ConfigError(f"{name} must be finite, got {alpha}")
        for name, chance in (("prob", prob), ("switch_prob", switch_prob)):
            if not 0 <= chance <= 1:
                raise ConfigError(f"mixup's {name} must be from 0 to 1, got {chance}")
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = 1.0 if cutmix_minmax is not None else cutmix_alpha
        self.cutmix_minmax = cutmix_minmax
        if self.mixup_alpha <= 0 and self.cutmix_alpha <= 0:
            raise ConfigError("mixup needs mixup_alpha or cutmix_alpha above 0, or cutmix_minmax")
        self.prob = prob
        self.switch_prob = switch_prob
        self.mode = mode
        self.correct_lam = correct_lam
        self.label_smoothing = label_smoothing
        self.num_classes = num_classes
        self.multi_label = multi_label
        self.mixup_enabled = True
        self._draws_whether = True

    def __call__(self, images, labels):
        shares, boxes = self._draw(len(images), images.shape)
        mirror = images.flip(0)
        blend = _blend_shares(shares, boxes).reshape(-1, 1, 1, 1)
        weight, rest = (to_device(np.float32(w), images.place) for w in (blend, 1 - blend))
        mixed = images * weight.astype(images.dtype) + mirror * rest.astype(images.dtype)
        for index, box in enumerate(boxes):
            if box is not None and all(side.stop > side.start for side in box):  # Paddle refuses empty parts
                mixed[(index, slice(None), *box)] = mirror[(index, slice(None), *box)]
        soft = mixup_target(labels, self.num_classes, shares[:, None], self.label_smoothing, self.multi_label)
        return mixed, soft

    def _draw(self, size, shape):
        """Draw, for each image of the result, the share of its own label [size] and the rectangle to paste, or None."""
        if size % 2 and self.mode in ("pair", "half"):
            raise ConfigError(f"mixup mode {self.mode!r:.80} needs an even batch size, not {size}")
        if self.mode == "batch":
            share, box = self._draw_one(shape)
            return np.full(size, share), [box] * size
        draws = size if self.mode == "elem" else size // 2
        shares, cut = self._draw_shares(draws)
        boxes = [None] * draws
        for index in np.flatnonzero(cut & (shares != 1)):
            boxes[index], shares[index] = self._draw_box(shape, shares[index])
        if self.mode == "pair":
            return np.concatenate([shares, shares[::-1]]), boxes + boxes[::-1]
        return shares, boxes

    def _draw_one(self, shape):
        if not self.mixup_enabled or (self._draws_whether and np.random.rand() >= self.prob):
            return 1.0, None
        cut = self._draw_methods()
        alpha = self.cutmix_alpha if cut else self.mixup_alpha
        share = float(np.random.beta(alpha, alpha))
        if not cut:
            return share, None
        box, share = self._draw_box(shape, share)
        return share, box

    def _draw_shares(self, count):
        """Draw the share, and whether it is CutMix's, for ``count`` images."""
        if not self.mixup_enabled:
            return np.ones(count, np.float32), np.zeros(count, bool)
        cut = np.broadcast_to(self._draw_methods(count), count)
        drawn = {}
        for is_cut, alpha in ((True, self.cutmix_alpha), (False, self.mixup_alpha)):
            if alpha > 0:
                drawn[is_cut] = np.random.beta(alpha, alpha, size=count)
        shares = np.where(cut, drawn.get(True, 1.0), drawn.get(False, 1.0)).astype(np.float32)
        return np.where(np.random.rand(count) < self.prob, shares, np.float32(1)), cut

    def _draw_methods(self, count=None):
        """Draw whether it is CutMix, once or for ``count`` images."""
        if self.mixup_alpha > 0 and self.cutmix_alpha > 0:
            return np.random.rand(*([count] if count else [])) < self.switch_prob
        return self.cutmix_alpha > 0

    def _draw_box(self, shape, share):
        height, width = shape[-2:]
        if self.cutmix_minmax is not None:
            box = _minmax_box(height, width, self.cutmix_minmax)
        else:
            box = _cutmix_box(height, width, share)
        if self.correct_lam or self.cutmix_minmax is not None:
            rows, columns = box
            share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        return box, share


def _blend_shares(shares, boxes):
    """Return the share of each image in the blend of pixels: images that get a rectangle are not blended."""
    return np.where([box is None for box in boxes], shares, shares.dtype.type(1))


class FastCollateMixup(Mixup):
    """Mix uint8 images [C, H, W] as they are collated; arrays, for use in the workers of a loader.

    The arguments are those of ``Mixup``. ``half`` is one more mode: the first half of the batch, mixed with the second.
    timm 0.1's call ``FastCollateMixup(mixup_alpha, label_smoothing, num_classes)`` is understood, and draws as that
    version did: a share for every batch, without first drawing whether to mix, which newer versions do even where
    ``prob`` is 1.
    """

    modes = MODES

    def __init__(self, *args, **kwargs):
        is_old_call = len(args) == 3 and isinstance(args[2], int)
        if is_old_call:
            kwargs.update(zip(("mixup_alpha", "label_smoothing", "num_classes"), args))
            args = ()
        super().__init__(*args, **kwargs)
        self._draws_whether = not is_old_call

    def __call__(self, samples):
        images, labels = zip(*samples)
        size = len(images)
        shares, boxes = self._draw(size, images[0].shape)
        blend = _blend_shares(shares, boxes)
        batch = np.empty((len(shares), *images[0].shape), np.uint8)
        for slot, image, other, share, box in zip(batch, images, reversed(images), blend, boxes):
            slot[:] = image if share == 1 else _blend(image, other, share)
            if box is not None:
                slot[(slice(None), *box)] = other[(slice(None), *box)]
        soft = _smoothed(np.array(labels), self.num_classes, self.label_smoothing, self._one_hot, self.multi_label)
        mirror, shares = soft[::-1][: len(batch)], np.float32(shares[:, None])  # mode "half" has half as many
        return batch, np.float32(soft[: len(batch)] * shares + mirror * (1 - shares))

    def _one_hot(self, classes):
        if classes.min() < 0 or classes.max() >= self.num_classes:
            wrong = classes.min() if classes.min() < 0 else classes.max()
            raise DataError(f"mixup has {self.num_classes} classes, from 0 on, and met the label {wrong}")
        return np.float32(classes[:, None] == np.arange(self.num_classes))


def _blend(image, other, share):
    mixed = image.astype(np.float32) * np.float32(share) + other.astype(np.float32) * np.float32(1 - share)
    return np.rint(mixed)
