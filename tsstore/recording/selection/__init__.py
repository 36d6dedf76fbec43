"""Which modules of a model are captured."""
