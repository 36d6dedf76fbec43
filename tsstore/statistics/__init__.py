"""Pure functions of a spectrum or of counts: entropies, bounds, efficiencies."""
