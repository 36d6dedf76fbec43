"""Groups of a run's samples: by a column, by step, by windows; each is an analysis of its own."""
