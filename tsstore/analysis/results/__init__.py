"""What an analysis found, and how it shows itself."""
