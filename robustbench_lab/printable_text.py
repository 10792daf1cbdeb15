"""Text that comes from plugins, files and databases, made harmless for a terminal and for a page."""


def printable(text: str) -> str:
    """On one line and without control characters, so that a name cannot move the cursor or forge a line."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)
