"""What goes wrong when results are read. Light, so that the command line can name it."""


class NotCollected(Exception):
    """There are no tables to read, or not in them what is asked for; the message says what to do."""
