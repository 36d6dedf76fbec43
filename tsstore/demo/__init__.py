"""A small trained LeNet-5 and the MNIST test images, so that the first run needs no download.

``mnist`` reads images and needs NumPy alone; ``model`` needs torch. Importing this
package imports none of them.
"""

from pathlib import Path

DATA = Path(__file__).parent / "data"
