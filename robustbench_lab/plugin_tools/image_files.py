"""Image files in folders."""

from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
"""As in torchvision's ImageFolder."""


def images_below(folder: Path) -> list[Path]:
    """Image files at any depth, in no order; names that start with a dot are left out."""
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
