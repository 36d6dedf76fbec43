"""A small trained LeNet-5 and the MNIST test images, so that the first run needs no download.

``mnist`` reads images and needs NumPy alone; ``model`` needs torch. Importing this
package imports none of them.
"""

from pathlib import Path

from tsstore.errors import TsstoreError

DATA = Path(__file__).parent / "data"


def read(path: str | Path, expected: str) -> bytes:
    """Return the bytes of a file; a TsstoreError says what is `expected` there, and what to do."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TsstoreError(
            f"{path}: cannot be read ({error.strerror}), expected {expected}"
        ) from error
