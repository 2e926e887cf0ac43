"""The exception that means "you asked for something that cannot be": one line, without a traceback."""

import difflib
import errno
from collections.abc import Iterable

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space left, quota, file size limit
USER_ERROR, INTERRUPTED = 2, 130  # exit codes, as shells use them


class UserError(ValueError):
    """A wrong option, file or value; the message names the option, the rule, the value and the way out."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """The end of an error message: the nearest right name, or up to a dozen choices when none is near.

    >>> nearest("DPPMsk", ["RandomMask", "DPPMask"])
    'did you mean DPPMask?'
    """
    choices = sorted(choices)
    lowered = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"did you mean {lowered[close[0]]}?"
    more = f", … ({len(choices)} in all)" if len(choices) > 12 else ""
    return f"choose from {', '.join(choices[:12])}{more}"


def short_reason(error: BaseException) -> str:
    """The first sentence of an exception's first line, without advice: torch's is to load unsafely.

    >>> short_reason(RuntimeError("Weights only load failed. Re-running with weights_only=False may help"))
    'Weights only load failed'
    """
    return str(error).partition("\n")[0].partition(". ")[0].rstrip(".") or type(error).__name__
