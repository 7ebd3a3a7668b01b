"""Damage a file as disks and interrupted copies do."""

import os


def flip_a_bit(path):
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    """Keep the first half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    """Keep nothing of a file but its name."""
    os.truncate(path, 0)
