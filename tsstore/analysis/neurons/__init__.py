"""Single neurons: how often they fire, alone, together and where; which do the same."""
