"""What a count will take: costs, layer plans, run plans."""
