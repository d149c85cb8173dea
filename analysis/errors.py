"""What goes wrong when results are read and shown. Light, so that the command line can name it."""


class NotCollected(Exception):
    """There are no tables to read, or not in them what is asked for; the message says what to do."""


class NotOurs(Exception):
    """What stands where output is to go was not made by the same command; the message says what to do."""
