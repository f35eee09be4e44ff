"""What a person reads: tables, figures, the report page, sentences, and what commands print.

Its modules are imported where they are used: tables and figures need pandas and plotly, the
progress display does not.
"""
