"""Image models, and what it takes to train them, on PaddlePaddle."""
