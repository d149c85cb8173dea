"""The three dense models of the study: how they are trained, and how they are shipped."""
