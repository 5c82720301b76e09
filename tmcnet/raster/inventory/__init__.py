"""What the source holds: sample sheet and patterns, checks, records."""
