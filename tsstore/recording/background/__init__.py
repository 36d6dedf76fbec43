"""The bounded queue, and the thread that writes."""
