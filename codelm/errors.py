"""The one exception a user may see: bad input, said in one line with what to do about it."""


class UserError(Exception):
    """Bad input from the user. The command line prints it as one line and exits 2; a server answers 4xx."""


def nearest(name: str, valid: list[str]) -> str:
    """The valid name closest to a mistyped one, for 'did you mean' (always answers, so there is always a hint)."""
    import difflib

    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.0)
    return close[0] if close else ""
