"""Tables of the paper: each a function from results to a pandas Styler, or NotCollected with what is missing."""
