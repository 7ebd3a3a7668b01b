"""The commands that an installation has."""

import re

from paths import ROOT


def scripts():
    """Return ``command -> module:function`` of pyproject.toml, which Python before 3.11 has no parser for."""
    section = re.search(r"^\[project\.scripts\]\n(.*?)^\[", (ROOT / "pyproject.toml").read_text(), re.M | re.S).group(1)
    return dict(re.findall(r'^(\S+) = "(\S+)"$', section, re.M))
