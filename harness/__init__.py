"""One cell of a study: from a trained translation model to a compressed one."""
