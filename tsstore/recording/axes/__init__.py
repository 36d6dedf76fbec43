"""Which axis of a tensor holds the neurons, and which the samples."""
