"""When do the claims of "Decoupled Weight Decay Regularization" show? See `python -m benchmarks.decoupling --help`."""
