"""Errors a person can act on: one line that says what is wrong, where, and how to mend it."""


class FeedbackError(Exception):
    """Wrong input, policy or usage. The command line prints it as one line and exits 2."""


class OutOfReach(FeedbackError):
    """A place elsewhere does not answer, or lets nobody in: that says nothing about what is there."""


class Refused(FeedbackError):
    """The gate or a blocking check refuses. The command line prints it and exits 1."""
