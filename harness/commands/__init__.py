"""The verbs of ``olmp`` that this room owns: modules with SUMMARY, add_arguments and run."""
