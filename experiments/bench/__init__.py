"""``make bench``: our speed as ratios to other programs, measured side by side on one machine.

A figure is a function from a context to rows of results, registered under its id; ``race`` lets two
programs take turns, each at the fastest setting that a short sweep finds, in long-lived processes that
have loaded their model (``workers``).
"""
