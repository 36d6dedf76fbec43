"""A small trained LeNet-5 and the MNIST test images, so that the first run needs no download.

``mnist`` reads images and needs NumPy alone; ``model`` and ``train`` need torch. Importing this
package imports none of them.
"""
