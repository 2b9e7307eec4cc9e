"""Reading weights: old checkpoints of several code bases, and the model files that `dbcpu convert` writes."""
