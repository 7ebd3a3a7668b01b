"""The commands of pimm: timm's scripts for training, validation, inference and the average of checkpoints."""
