"""The verbs of the analysis: each module has SUMMARY, add_arguments(parser) and run(args)."""
