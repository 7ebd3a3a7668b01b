"""The settings of a job become nets, data, steps and plans."""
