"""The one exception that a user is meant to read."""


class StudyError(Exception):
    """Something the user gave cannot be used.

    The message says what was wrong, what is allowed and what to do, in one line. The command line
    prints it and exits with code 2; anything else that escapes is a bug and keeps its traceback.
    """
