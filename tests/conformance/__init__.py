"""One client script, run against a real Triton and against Octavo: ``make conformance`` prints every difference of the answers."""
