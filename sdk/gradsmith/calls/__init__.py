"""Each call of the API once: its method, path and parameters, and how its answer is read."""
