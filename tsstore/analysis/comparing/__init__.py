"""Two runs: how their efficiencies and bits differ, and which states both show."""
