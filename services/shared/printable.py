"""What strangers wrote, shown in a terminal."""


def printable(text: str) -> str:
    r"""Without what would steer a terminal; joined emoji stay.

    >>> printable("a\n\x1b[31mb\udcff")
    'a\\n\\x1b[31mb\\udcff'
    """
    return "".join(
        c if c.isprintable() or c == "\u200d" else c.encode("unicode_escape").decode() for c in text
    )
