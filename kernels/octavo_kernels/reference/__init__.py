"""The twins of the Triton kernels in plain torch: what they must compute, and what a CPU runs. Knows no Triton."""
