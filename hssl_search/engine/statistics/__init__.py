"""Pure statistics: scores, intervals, correlations, ties."""

CONFIDENCE = 0.95
"""Of intervals."""
