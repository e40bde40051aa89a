"""Searching whatever was left behind for secrets, in every form in which they could lie there."""

import base64
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path


def forms(secret: str) -> Mapping[str, bytes]:
    """A secret as bytes, by the name of the form; what is base64 is found within longer base64, too."""
    found = {}
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        plain = secret.encode(encoding)
        found[encoding] = plain
        found[f"hex of {encoding}"] = plain.hex().encode()
        found[f"HEX of {encoding}"] = plain.hex().upper().encode()
        for shift in range(3):
            # Letters that hold bits of what stands before or after the secret are left out.
            first, last = -(-shift * 8 // 6), (shift + len(plain)) * 8 // 6
            letters = base64.b64encode(bytes(shift) + plain + bytes(3))[first:last]
            found[f"base64 of {encoding}, {shift} bytes in"] = letters
    return found


def found_in(sources: Mapping[str, bytes], secrets: Mapping[str, str]) -> list[str]:
    """Which secret is where, and in which form; empty: none is anywhere.

    Args:
        sources: what is searched, by where it is from.
        secrets: by what they are.
    """
    wanted = [(what, form, letters) for what, secret in secrets.items() for form, letters in forms(secret).items()]
    return [
        f"{what} ({form}) in {where}"
        for where, content in sources.items()
        for what, form, letters in wanted
        if letters in content
    ]


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file in a folder and below, as it lies on the disk."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def dumps_below(folder: Path) -> dict[str, bytes]:
    """Every SQLite database in a folder and below, as the SQL that makes it anew."""
    found = {}
    for path in folder.rglob("*.db"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            found[f"{path.relative_to(folder)}, dumped"] = "\n".join(database.iterdump()).encode()
    return found
