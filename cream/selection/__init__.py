"""Which path of a trained supernet becomes the net."""
