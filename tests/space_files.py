"""Spaces in YAML: one of the repository, and one with blocks of all kinds, as a text that tests change."""

from paths import ROOT

SMALL = ROOT / "configs" / "spaces" / "small.yaml"
# One stage with all block types, one with a depth of its own, and a stem that keeps the image's size.
ALL = """
stem: 8
stem_stride: 1
head: 24
activation: hard_swish
operations:
  - {kernel: 3, expansion: 2}
  - {block: ds, kernel: 5, se: 0.5, dilation: 2}
  - {block: er, kernel: 3, expansion: 1.5}
  - {block: cn, kernel: 1}
  - {block: ru, kernel: 3, reduction: 2}
  - {block: id}
stages:
  - {channels: 8, depth: [0, 2]}
  - {channels: 12, stride: 2, depth: [1, 3]}
  - {channels: 16, operations: [{block: cn, kernel: 3}]}
"""
