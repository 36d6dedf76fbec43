"""Callbacks that let a trainer record its evaluations; each module needs its own package.

- :mod:`tsstore.integrations.lightning`: Lightning's ``Trainer``.
- :mod:`tsstore.integrations.transformers`: the ``Trainer`` of Hugging Face transformers.

Nothing is imported here. Loops of your own need none of it: see :func:`tsstore.capture`.
"""
