"""Who is tried, who is promoted, who is stopped."""
