"""Put the recipes and the embedded images, which a clone has at its top, into the packages that read them."""

from setuptools import find_packages, setup

FOLDERS = {"cream.configs": "configs", "pimm.data.fashion_mnist": "data/fashion_mnist"}

setup(packages=[*find_packages(include=["pimm*", "cream*"]), *FOLDERS], package_dir=FOLDERS)
