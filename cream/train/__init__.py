"""What a training of a supernet consists of: steps, board, matching network, sampler."""
