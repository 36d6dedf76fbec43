"""Which sample each entry of a tensor belongs to."""
