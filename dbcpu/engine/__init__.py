"""What makes a built network fast on a CPU: the same numbers up to rounding, in less time and memory."""
