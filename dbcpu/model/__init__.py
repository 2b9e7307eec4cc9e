"""The networks, with the parameter names of the original code."""
