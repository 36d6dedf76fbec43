"""Where a store lies: the one place that writes and reads bytes."""
