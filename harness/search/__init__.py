"""What proposes candidates: derivative-free optimisers over one knob per group, and their search-free rivals.

`optimisers` builds any optimiser by name, NCS (`ncs`) among them, behind nevergrad's ask and tell; `rules`
holds the rules that need no search, one strength each, and `scan` brings them to the edge of the constraint.
"""
