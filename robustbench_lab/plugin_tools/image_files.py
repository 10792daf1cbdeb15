"""Image files in folders."""

from pathlib import Path

from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
"""As in torchvision's ImageFolder."""
UNREADABLE = (OSError, SyntaxError, ValueError, ImportError, Image.DecompressionBombError)
"""What Pillow raises for a file that is no image, or a damaged one. ImportError: where ultralytics is imported, it has
put an `open` of its own in place of Pillow's, which then asks for further libraries."""


def images_below(folder: Path) -> list[Path]:
    """Image files at any depth, in no order; names that start with a dot are left out."""
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
