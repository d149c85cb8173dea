"""Which cells to run: plans, the runner and its executors, the result store."""
