"""Pure statistics: scores, intervals, correlations, ties."""
