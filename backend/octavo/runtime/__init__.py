"""The device's side of one step: memory, batches, the forward pass and the sampler. Knows tensors, no request and no schedule."""
