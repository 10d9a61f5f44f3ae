"""The reader's rule of `docs/messages.md`: what to take, and how much was missed before it."""

from msgspec import Struct


class Verdict(Struct, frozen=True):
    """On a message that is to be taken."""

    lost: int
    restarted: bool


class Sequence:
    """The reader's rule for one kind, asset and venue.

    It knows the newest run and the one before, from which something late may still come.
    """

    def __init__(self, *, is_state: bool) -> None:
        self._is_state = is_state
        self._run = ""
        self._seq = 0
        self._left_run = ""
        self._left_seq = 0

    def judge(self, run: str, seq: int) -> Verdict | None:
        """Whether to take a message; None: it has been had, or is older than what has."""
        if run == self._run:
            missed = seq - self._seq - 1
            if missed < 0:
                return None
            self._seq = seq
            return Verdict(missed, restarted=False)
        if run == self._left_run:
            missed = seq - self._left_seq - 1
            # An event of a daemon that has been replaced is as good as any; its state is not.
            if self._is_state or missed < 0:
                return None
            self._left_seq = seq
            return Verdict(missed, restarted=False)
        is_first = not self._run
        self._left_run, self._left_seq = self._run, self._seq
        self._run, self._seq = run, seq
        return Verdict(0 if is_first else seq - 1, restarted=not is_first)
