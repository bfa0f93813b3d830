"""What bytes that are not valid in an encoding probably are, by a look at them."""

from charjax.errors import InputError

_KINDS = {
    b"PK\x03\x04": "a .docx, .odt, .epub or other zip archive",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "an old Word or other Office document",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x7fELF": "a program",
    b"SQLite format": "a database",
}


def refusal(
    name: str, encoding: str, where: str, reason: str, head: bytes, around: bytes
) -> InputError:
    """The error about bytes that are not valid, and what to do.

    `head` are the first bytes of the file, `around` those near the first that is not valid.
    """
    kind = next((kind for start, kind in _KINDS.items() if head.startswith(start)), None)
    problem = f"{name} is not valid {encoding}{where}: {reason}."
    in_bytes = "model bytes with `data.vocabulary='bytes'`"
    if kind is not None:
        return InputError(
            f"{problem} This is {kind}, not a text: save or unpack it as plain text, or "
            f"{in_bytes}."
        )
    likely = likely_encoding(around)
    if likely is None or likely == encoding:
        return InputError(f"{problem} Give its `data.encoding`, or {in_bytes}.")
    return InputError(
        f"{problem} It looks like {likely}: give `data.encoding={likely!r}`, or {in_bytes}."
    )


def likely_encoding(data: bytes) -> str | None:
    """The encoding that some bytes of a text are probably in, or None.

    >>> likely_encoding("naïve".encode("latin-1")), likely_encoding("naïve".encode())
    ('latin-1', 'utf-8')
    >>> likely_encoding("plain".encode("utf-16-le")), likely_encoding(b"\\xce\\xe4")
    ('utf-16-le', None)
    """
    if (wide := _utf16(data)) is not None:
        return wide
    if any(byte < 32 and byte not in b"\t\n\f\r\x1a\x1b" for byte in data):
        return None
    high = [byte for byte in data if byte >= 0x80]
    if high and _is_utf8(data):
        return "utf-8"
    # Accents among letters; a script of its own has whole words of such bytes.
    if not high or len(high) > len(data) / 4:
        return None
    return "cp1252" if any(byte < 0xA0 for byte in high) else "latin-1"


def _utf16(data: bytes) -> str | None:
    half = len(data) // 2
    if half < 2:
        return None
    # What is not in the Latin alphabet has few zeros, but its spaces and line ends do.
    low, high = data[: 2 * half : 2].count(0), data[1 : 2 * half : 2].count(0)
    if max(low, high) < half / 20 or min(low, high) > max(low, high) / 10:
        return None
    encoding = "utf-16-le" if high > low else "utf-16-be"
    try:
        data[: 2 * half].decode(encoding)
    except UnicodeDecodeError:
        return None
    return encoding


def _is_utf8(data: bytes) -> bool:
    # Cut anywhere, so that the first and the last few bytes may be parts of characters.
    for start in range(4):
        for end in range(len(data), max(len(data) - 4, 0), -1):
            try:
                return not data[start:end].decode("utf-8").isascii()
            except UnicodeDecodeError:
                continue
    return False
